/**
 * The Markdown that answers are written in: CommonMark with GitHub's tables, strikethrough and bare addresses, and formulas.
 *
 * Different from CommonMark, and why: no HTML; no headings by underlining, since a list that begins below a line ("Steps:⏎-") would
 * flash as a heading while it streams; no link but to the web or a mail address; quotes and lists end at a depth of DEEPEST, where the rest
 * is shown as it was written; emphasis works beside Chinese punctuation.
 */
import Markdown, { type MarkdownIt, type StateBlock } from "markdown-it";
import cjkFriendly from "markdown-it-cjk-friendly";

import { safeLink } from "./links";
import { formulaAt } from "./math";
import { pushParagraph, withMath } from "./mathRules";

/** Of quotes and list items, in levels of the parser: a quote is one, a list item two. */
const DEEPEST = 40;
const MOST_COLUMNS = 64; // of a table: rows are filled up to it, so a wide head would make a short text a huge page

/** Stands for "|" in a formula of a table, while the parser looks for cells. It is no character, so texts do not contain it. */
const MASK = "\uFDD0";

export const parser: MarkdownIt = makeParser();

function makeParser(): MarkdownIt {
  const made = new Markdown({ html: false, linkify: true, maxNesting: 100 });
  made.use(cjkFriendly);
  made.disable(["lheading", "html_block", "html_inline"]);
  made.validateLink = (address) => safeLink(address) !== null;
  made.linkify.add("ftp:", null).add("//", null);
  withMath(made);
  withFormulasInTables(made);
  made.block.ruler.before("table", "deepest", restAsText);
  return made;
}

/** A parser that would only drop what is too deep is told to keep it as text. */
function restAsText(state: StateBlock, startLine: number, endLine: number, silent: boolean): boolean {
  if (silent || state.level < DEEPEST) return false;
  pushParagraph(state, startLine, endLine);
  return true;
}

function withFormulasInTables(made: MarkdownIt): void {
  const table = new Markdown("zero").enable("table").block.ruler.getRules("")[0];
  if (!table) throw new Error("markdown-it has no rule for tables");
  const masked = new WeakMap<StateBlock, string>();
  made.block.ruler.at(
    "table",
    (state, startLine, endLine, silent) => {
      if (tooWide(state, startLine)) return false;
      const source = state.src;
      const cells = masked.get(state) ?? mask(source);
      masked.set(state, cells);
      const first = state.tokens.length;
      state.src = cells;
      const matched = table(state, startLine, endLine, silent);
      state.src = source;
      if (cells !== source) for (const token of state.tokens.slice(first)) token.content = token.content.replaceAll(MASK, "|");
      return matched;
    },
    { alt: ["paragraph", "reference"] },
  );
}

function tooWide(state: StateBlock, line: number): boolean {
  const text = state.src.slice(state.bMarks[line], state.eMarks[line]);
  return text.split("|", MOST_COLUMNS + 3).length > MOST_COLUMNS + 2;
}

/** Hides the bars of formulas and of code, so they do not end a cell. All positions stay. */
function mask(source: string): string {
  if (!source.includes("|") || !/[$`]|\\\(/.test(source)) return source;
  return source.replace(/^.*\|.*$/gm, maskLine);
}

function maskLine(line: string): string {
  let made = "";
  for (let position = 0; position < line.length; ) {
    const end = endOfWhole(line, position);
    const piece = line.slice(position, end ?? position + (line[position] === "\\" ? 2 : 1));
    made += end === null ? piece : piece.replaceAll("|", MASK);
    position += piece.length;
  }
  return made;
}

/** The end of the formula or the code that begins here, within which a bar is no border; null if none does. */
function endOfWhole(line: string, start: number): number | null {
  const character = line[start];
  if (character === "`") return endOfCode(line, start);
  const formula = character === "$" || character === "\\" ? formulaAt(line, start) : null;
  return formula && !/\w/.test(line[formula.end] ?? "") ? formula.end : null;
}

const LONGEST_CODE = 200; // in a cell, with bars; the limit keeps a line of open marks cheap

/** GitHub would end the cell within the code, which nobody who writes `a|b` means. A run of marks without its equal is skipped. */
function endOfCode(line: string, start: number): number | null {
  let end = start;
  while (line[end] === "`") end++;
  const mark = line.slice(start, end);
  const rest = line.slice(end, end + LONGEST_CODE);
  const close = rest.search(new RegExp(`(?<!\`)${mark}(?!\`)`));
  return mark.length < 4 && close > 0 ? end + close + mark.length : null;
}
