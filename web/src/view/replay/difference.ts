/** Where two texts differ first, with some text around it. Positions count characters as a reader does, not UTF-16 units. */

export interface Difference {
  at: number; // characters that are the same before it
  before: string; // the last of these
  left: string; // what follows in the first text; empty: it ends there
  right: string;
}

const CONTEXT = 24;
const AHEAD = 40;

/** The first difference, or null if the texts are the same. Takes time proportional to the common beginning. */
export function firstDifference(left: string, right: string): Difference | null {
  if (left === right) return null;
  let at = 0;
  while (at < left.length && at < right.length && left.charCodeAt(at) === right.charCodeAt(at)) at++;
  if (splitsPair(left, at) || splitsPair(right, at)) at--;
  const before = left.slice(0, at);
  return {
    at: [...before].length,
    before: [...before.slice(-2 * CONTEXT)].slice(-CONTEXT).join(""),
    left: [...left.slice(at, at + 2 * AHEAD)].slice(0, AHEAD).join(""),
    right: [...right.slice(at, at + 2 * AHEAD)].slice(0, AHEAD).join(""),
  };
}

function splitsPair(text: string, at: number): boolean {
  const [before, after] = [text.charCodeAt(at - 1), text.charCodeAt(at)];
  return before >= 0xd800 && before < 0xdc00 && after >= 0xdc00 && after < 0xe000;
}
