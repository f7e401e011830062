/**
 * Where formulas are in a text: `\(…\)`, `\[…\]`, `$$…$$`, `$…$` and a bare `\boxed{…}`.
 *
 * A dollar follows Pandoc's rule (manual, extension tex_math_dollars): the opening one has no space after it, the closing one no space
 * before it and no digit after it, so "$5 and $6" stays money. What is not closed stays as it was written, so that a formula that is
 * still arriving never looks like an error. No formula contains a blank line.
 */
import { endOfGroup } from "./groups";

/** Longer ones are shown as they were written: no formula of a reader's is, and KaTeX would need seconds. */
const LONGEST = 10_000;
const LONGEST_BOX = 2000;

export interface Formula {
  tex: string;
  display: boolean;
  /** Where it ends, after its closing delimiter. */
  end: number;
}

const SPACE = /\s/;
const DIGIT = /[0-9]/;

/** The formula that begins at `start`, or null. */
export function formulaAt(text: string, start: number, limit = text.length): Formula | null {
  if (text.startsWith("\\(", start)) return between(text, start, "\\)", false, limit);
  if (text.startsWith("\\[", start)) return between(text, start, "\\]", true, limit);
  if (text.startsWith("$$", start)) return between(text, start, "$$", true, limit);
  if (text[start] === "$") return dollars(text, start, limit);
  return text.startsWith("\\boxed{", start) ? box(text, start, limit) : null;
}

function between(text: string, start: number, close: string, display: boolean, limit: number): Formula | null {
  const end = find(text, close, start + 2, limit);
  const tex = end < 0 ? "" : text.slice(start + 2, end).trim();
  return tex ? { tex, display, end: end + close.length } : null;
}

/**
 * The next `what` that no backslash precedes as an escape; -1 if there is none before `limit`, or it is too far.
 *
 * The last search of each delimiter is remembered, so a text of nothing but opening delimiters is searched once and not once for each.
 */
export function find(text: string, what: string, from: number, limit: number): number {
  const last = searches.get(what);
  let found = -1;
  if (last && last.text === text && last.from <= from && (last.found < 0 || last.found >= from)) found = last.found;
  else {
    found = text.indexOf(what, from);
    while (found >= 0 && isEscaped(text, found, from)) found = text.indexOf(what, found + 1);
    searches.set(what, { text, from, found });
  }
  return found >= 0 && found + what.length <= limit && found - from <= LONGEST ? found : -1;
}

const searches = new Map<string, { text: string; from: number; found: number }>();

function isEscaped(text: string, position: number, from: number): boolean {
  let backslashes = 0;
  while (position - backslashes > from && text[position - backslashes - 1] === "\\") backslashes++;
  return backslashes % 2 === 1;
}

function dollars(text: string, start: number, limit: number): Formula | null {
  if (start + 1 >= limit || SPACE.test(text[start + 1] ?? " ")) return null;
  const last = Math.min(limit, start + LONGEST);
  for (let position = start + 1; position < last; position++) {
    if (text[position] === "\\") position = afterCommand(text, position, last);
    else if (text[position] === "$") return closedBy(text, start, position, limit);
  }
  return null;
}

function closedBy(text: string, start: number, close: number, limit: number): Formula | null {
  if (close === start + 1 || SPACE.test(text[close - 1] ?? " ")) return null;
  if (close + 1 < limit && DIGIT.test(text[close + 1] ?? "")) return null;
  return { tex: text.slice(start + 1, close), display: false, end: close + 1 };
}

const TEXT_COMMAND = /\\(?:text|mbox|textrm|textit|textbf)\{/y;

/** The last position of an escape or, since dollars may stand in it, of a whole `\text{…}`. */
function afterCommand(text: string, position: number, limit: number): number {
  TEXT_COMMAND.lastIndex = position;
  if (!TEXT_COMMAND.test(text)) return position + 1;
  const close = endOfGroup(text, TEXT_COMMAND.lastIndex - 1, Math.min(limit, position + 500));
  return close < 0 ? position + 1 : close;
}

function box(text: string, start: number, limit: number): Formula | null {
  const close = endOfGroup(text, start + 6, Math.min(limit, start + LONGEST_BOX));
  return close < 0 ? null : { tex: text.slice(start, close + 1), display: false, end: close + 1 };
}
