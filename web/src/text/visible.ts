/** Characters that reorder a line or hide in it are shown by their number in code, so that code reads as it runs. */

/** Marks of direction (Unicode's UAX 9) and characters without width. */
const HIDDEN = /[\u061C\u200B\u200E\u200F\u202A-\u202E\u2060-\u2069\uFEFF]/u;
const EACH = new RegExp(HIDDEN.source, "gu");

/** The text with such characters replaced: "\u202E" becomes "⟨U+202E⟩". */
export function visible(text: string): string {
  if (!HIDDEN.test(text)) return text;
  return text.replace(EACH, (character) => `⟨U+${character.codePointAt(0)?.toString(16).toUpperCase().padStart(4, "0")}⟩`);
}
