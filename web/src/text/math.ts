/**
 * Formulas in Markdown: `\(…\)`, `\[…\]`, `$$…$$`, `$…$` and a bare `\boxed{…}`.
 *
 * A dollar follows Pandoc's rule (manual, extension tex_math_dollars): the opening one has no space after it, the closing one no space
 * before it and no digit after it, so "$5 and $6" stays money. What is not closed stays as it was written, so that a formula that is
 * still arriving never looks like an error. No formula contains a blank line.
 */
import type { MarkdownIt, StateBlock, StateInline } from "markdown-it";

import { endOfGroup } from "./boxed";

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
function find(text: string, what: string, from: number, limit: number): number {
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

/** Teaches a parser formulas: an inline rule, and a paragraph whose formula's lines are no list items, quotes or headings. */
export function withMath(parser: MarkdownIt): void {
  parser.inline.ruler.before("escape", "formula", inlineFormula);
  parser.block.ruler.before("paragraph", "formula", paragraphWithFormula);
}

function inlineFormula(state: StateInline, silent: boolean): boolean {
  const code = state.src.charCodeAt(state.pos);
  if (code !== 36 && code !== 92) return false; // $ \
  const formula = formulaAt(state.src, state.pos, state.posMax);
  if (!formula) return code === 92 && openDelimiter(state, silent);
  if (!silent) {
    const token = state.push("formula", "", 0);
    token.content = formula.tex;
    token.markup = state.src.slice(state.pos, formula.end);
    token.info = formula.display ? "display" : "";
  }
  state.pos = formula.end;
  return true;
}

/** An opening `\(` or `\[` without its end is shown with its backslash, which the rule of escapes would take away. */
function openDelimiter(state: StateInline, silent: boolean): boolean {
  const next = state.src[state.pos + 1];
  if ((next !== "(" && next !== "[") || state.pos + 1 >= state.posMax) return false;
  if (!silent) state.pending += `\\${next}`;
  state.pos += 2;
  return true;
}

/**
 * A paragraph like CommonMark's, but one in which the lines of a display formula do not end it: "- b" in a formula is no list.
 * Applies only where a display formula covers several lines.
 */
function paragraphWithFormula(state: StateBlock, startLine: number, endLine: number, silent: boolean): boolean {
  if (silent || !hasOpener(state, startLine, endLine)) return false;
  const terminators = state.md.block.ruler.getRules("paragraph");
  const parentType = state.parentType;
  state.parentType = "paragraph";
  const missing = new Set<string>();
  let next = formulaEnd(state, startLine, endLine, missing) + 1;
  while (next < endLine && !state.isEmpty(next)) {
    const depth = (state.sCount[next] ?? 0) - state.blkIndent;
    const lazy = depth > 3 || (state.sCount[next] ?? 0) < 0;
    if (!lazy && terminators.some((rule) => rule(state, next, endLine, true))) break;
    next = formulaEnd(state, next, endLine, missing) + 1;
  }
  state.parentType = parentType;
  pushParagraph(state, startLine, next);
  return true;
}

/** A paragraph of these lines. */
export function pushParagraph(state: StateBlock, startLine: number, endLine: number): void {
  state.push("paragraph_open", "p", 1).map = [startLine, endLine];
  const inline = state.push("inline", "", 0);
  inline.content = state.md.utils.asciiTrim(state.getLines(startLine, endLine, state.blkIndent, false));
  inline.map = [startLine, endLine];
  inline.children = [];
  state.push("paragraph_close", "p", -1);
  state.line = endLine;
}

const OPENER = /\\\[|\$\$/;

function lineOf(state: StateBlock, line: number): string {
  return state.src.slice((state.bMarks[line] ?? 0) + (state.tShift[line] ?? 0), state.eMarks[line]);
}

function hasOpener(state: StateBlock, startLine: number, endLine: number): boolean {
  for (let line = startLine; line < endLine && !state.isEmpty(line); line++) if (OPENER.test(lineOf(state, line))) return true;
  return false;
}

/**
 * The line on which a display formula ends that this line leaves open; this line if there is none. What the paragraph does not
 * hold is added to `missing`, so it is searched once.
 */
function formulaEnd(state: StateBlock, line: number, endLine: number, missing: Set<string>): number {
  const close = leftOpen(lineOf(state, line));
  if (!close || missing.has(close)) return line;
  for (let next = line + 1; next < endLine && !state.isEmpty(next); next++) {
    if ((state.sCount[next] ?? 0) < state.blkIndent) break;
    const text = lineOf(state, next);
    if (find(text, close, 0, text.length) >= 0) return next;
  }
  missing.add(close);
  return line;
}

/** What would close the display formula that a line leaves open; null if it leaves none open. */
function leftOpen(text: string): "\\]" | "$$" | null {
  for (let position = 0; position < text.length; position++) {
    const character = text[position];
    if (character !== "\\" && character !== "$") continue;
    const formula = formulaAt(text, position);
    if (formula) position = formula.end - 1;
    else if (text.startsWith("\\[", position)) return "\\]";
    else if (text.startsWith("$$", position)) return "$$";
    else if (character === "\\") position++;
  }
  return null;
}
