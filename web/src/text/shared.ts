/** Values that have not changed keep their identity, part by part: what shows a part can then tell by `===` that it may stay. */

/** `after`, with every part of it that equals the same part of `before` replaced by that one. For plain data. */
export function shared<T>(before: unknown, after: T): T {
  if (before === after || typeof before !== "object" || typeof after !== "object" || !before || !after) return after;
  if (Array.isArray(before) !== Array.isArray(after)) return after;
  const old = before as Record<string, unknown>;
  const made = after as Record<string, unknown>;
  const keys = Object.keys(made);
  let same = keys.length === Object.keys(old).length;
  for (const key of keys) {
    made[key] = shared(old[key], made[key]);
    same &&= made[key] === old[key];
  }
  return same ? (before as T) : after;
}
