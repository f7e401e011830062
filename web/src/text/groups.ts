/** Groups in braces, as TeX writes them. */

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
