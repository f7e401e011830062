/** The result that a model puts in a box: `\boxed{42}`. */

/** Where the group that opens at `open` ends (the position of its closing brace), or -1 if it does not close before `limit`. */
export function endOfGroup(text: string, open: number, limit = text.length): number {
  let depth = 0;
  for (let position = open; position < limit; position++) {
    const character = text.charCodeAt(position);
    if (character === BACKSLASH) position++;
    else if (character === OPEN) depth++;
    else if (character === CLOSE && --depth === 0) return position;
  }
  return -1;
}

const BACKSLASH = 92;
const OPEN = 123;
const CLOSE = 125;
const BOX = "\\boxed{";
const LONGEST = 2000; // of a result, in characters: a text full of open boxes must stay cheap

/** What is in the last complete `\boxed{…}` of a text; null if there is none. Of boxes in a box it is the last inner one. */
export function boxed(text: string): string | null {
  let start = text.lastIndexOf(BOX);
  while (start >= 0) {
    const open = start + BOX.length - 1;
    const close = endOfGroup(text, open, Math.min(text.length, open + LONGEST));
    if (close > 0) return text.slice(open + 1, close).trim();
    start = start > 0 ? text.lastIndexOf(BOX, start - 1) : -1;
  }
  return null;
}
