/** The rules that teach the Markdown parser formulas: see `math.ts` for what a formula is. */
import type { MarkdownIt, StateBlock, StateInline } from "markdown-it";

import { find, formulaAt } from "./math";

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
  if (silent || !opensLater(state, startLine)) return false;
  const terminators = state.md.block.ruler.getRules("paragraph");
  const parentType = state.parentType;
  state.parentType = "paragraph";
  const missing = new Set<string>();
  let covers = false;
  let next = startLine;
  for (;;) {
    const end = formulaEnd(state, next, endLine, missing);
    covers ||= end > next;
    next = end + 1;
    if (next >= endLine || state.isEmpty(next)) break;
    const indent = state.sCount[next] ?? 0;
    const lazy = indent < 0 || indent - state.blkIndent > 3;
    if (!lazy && terminators.some((rule) => rule(state, next, endLine, true))) break;
  }
  state.parentType = parentType;
  if (covers) pushParagraph(state, startLine, next);
  return covers;
}

/** Whether a display formula may begin on this line or later: most texts have none, and their paragraphs are read once. */
function opensLater(state: StateBlock, line: number): boolean {
  let last = lastOpener.get(state);
  if (last === undefined) {
    last = Math.max(state.src.lastIndexOf("\\["), state.src.lastIndexOf("$$"));
    lastOpener.set(state, last);
  }
  return last >= (state.bMarks[line] ?? 0);
}

const lastOpener = new WeakMap<StateBlock, number>();

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

function lineOf(state: StateBlock, line: number): string {
  return state.src.slice((state.bMarks[line] ?? 0) + (state.tShift[line] ?? 0), state.eMarks[line]);
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
