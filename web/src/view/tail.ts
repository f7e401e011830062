/** The end of a growing text that is long enough to fill a small window, so that a long text costs no more than a short one. */

export const TAIL = 3000; // characters, more than fill the window

/**
 * Where the end begins: at a paragraph if one is near, and at the same place while the text grows by a few thousand
 * characters, so that little of it is parsed anew.
 */
export function tailStart(text: string): number {
  if (text.length <= 2 * TAIL) return 0;
  const earliest = Math.floor((text.length - TAIL) / TAIL) * TAIL;
  const paragraph = text.indexOf("\n\n", earliest);
  return paragraph === -1 || paragraph > text.length - TAIL / 2 || paragraph > earliest + TAIL / 2
    ? whole(text, earliest)
    : paragraph + 2;
}

/** Not within a character of two units. */
function whole(text: string, at: number): number {
  const unit = text.charCodeAt(at);
  return unit >= 0xdc00 && unit <= 0xdfff ? at + 1 : at;
}
