/**
 * A text as blocks, and a text that grows: while an answer streams, only its end is parsed again.
 *
 * A block at the top level is finished once a blank line and a further complete line follow it that begins another block: nothing that is
 * written later changes it, since no rule of the parser looks back over a blank line or (but for link definitions, which inline content looks up
 * when it is shown) depends on what comes later.
 */
import type { StateBlock, Token } from "markdown-it";

import type { Reference, References } from "./inline";
import { parser } from "./parser";
import { shared } from "./shared";
import { TreeReader, type Node } from "./tree";

/** One block of the top level. The same object as before if nothing about it has changed. */
export interface Block {
  readonly source: string;
  readonly node: Node;
  readonly references: References;
}

/** The blocks of a whole text. */
export function parse(text: string): readonly Block[] {
  return new Blocks().update(text);
}

/** The blocks of a text that grows. */
export class Blocks {
  /** How many characters have been parsed so far, of all updates: the measure of what streaming costs. */
  parsed = 0;
  private source = ""; // of the finished blocks, as it was given
  private finished: Block[] = [];
  private finishedReferences: References = none();
  private shown: readonly Block[] = [];
  private references: References = none();

  /** The blocks of the text as it is now. With `final`, everything is parsed again. */
  update(raw: string, final = false): readonly Block[] {
    if (final || !raw.startsWith(this.source)) this.reset();
    const rest = raw.slice(this.source.length);
    const piece = parsePiece(normalized(rest), this.finishedReferences);
    this.parsed += rest.length;
    this.shown = this.kept([...this.finished, ...piece.blocks], piece.references);
    this.finish(piece, rest);
    return this.shown;
  }

  private reset(): void {
    this.source = "";
    this.finished = [];
    this.finishedReferences = none();
  }

  /** Keeps the objects of blocks that have not changed, so that what shows them can tell. */
  private kept(blocks: Block[], references: References): readonly Block[] {
    if (!sameReferences(references, this.references)) this.references = references;
    return blocks.map((block, index) => {
      const before = this.shown[index];
      const wanted = block.source.includes("[") ? this.references : NONE;
      if (before && before.source === block.source && before.references === wanted) return before;
      return { ...block, node: before ? shared(before.node, block.node) : block.node, references: wanted };
    });
  }

  private finish(piece: Piece, rest: string): void {
    if (piece.safe === 0) return;
    this.source += rest.slice(0, startOfLine(rest, piece.safe));
    this.finished = this.shown.slice(0, this.finished.length + piece.safeBlocks);
    this.finishedReferences = piece.safeReferences;
  }
}

function none(): References {
  return Object.create(null) as References;
}

const NONE = none();

function sameReferences(one: References, other: References): boolean {
  const labels = Object.keys(one);
  return (
    labels.length === Object.keys(other).length &&
    labels.every((label) => one[label]?.href === other[label]?.href && one[label]?.title === other[label]?.title)
  );
}

/** Control characters, halves of characters and what stands for nothing become the mark of an unknown character. */
// oxlint-disable-next-line no-control-regex
const UNKNOWN = /[\u0000-\u0008\u000B\u000C\u000E-\u001F\u007F\uFDD0-\uFDEF]|[\uD800-\uDBFF](?![\uDC00-\uDFFF])|(?<![\uD800-\uDBFF])[\uDC00-\uDFFF]/g;

function normalized(text: string): string {
  const lines = text.includes("\r") ? text.replace(/\r\n?/g, "\n") : text;
  return lines.replace(UNKNOWN, "\uFFFD");
}

/** Where the line of this number begins, for line ends of every kind. */
function startOfLine(text: string, line: number): number {
  const ends = /\r\n?|\n/g;
  for (let count = 0; count < line; count++) ends.exec(text);
  return ends.lastIndex;
}

interface Piece {
  blocks: Block[];
  references: References;
  /** How much of the text is finished, in lines, in blocks and with its definitions. */
  safe: number;
  safeBlocks: number;
  safeReferences: References;
}

function parsePiece(text: string, before: References): Piece {
  const references = Object.assign(none(), before) as Record<string, Reference>;
  const tokens: Token[] = [];
  const state = new parser.block.State(text, parser, { references }, tokens);
  parser.block.tokenize(state, 0, state.lineMax);
  const piece: Piece = { blocks: [], references, safe: 0, safeBlocks: 0, safeReferences: before };
  const tops = topLevel(tokens);
  const lastSafe = tops.findLastIndex((top, index) => index > 0 && isSafeStart(state, top.start));
  tops.forEach((top, index) => {
    if (index === lastSafe) {
      piece.safe = top.start;
      piece.safeBlocks = piece.blocks.length;
    }
    const [node] = new TreeReader(top.tokens, (fence) => isClosed(state, fence)).nodes();
    if (node) piece.blocks.push({ source: sourceOf(state, top.start, top.end), node, references: NONE });
  });
  if (piece.safe) piece.safeReferences = definedIn(tops.slice(0, lastSafe), before, references);
  return piece;
}

interface Top {
  tokens: Token[];
  start: number;
  end: number;
}

/** The tokens of each block of the top level, with its lines. */
function topLevel(tokens: readonly Token[]): Top[] {
  const tops: Top[] = [];
  for (const token of tokens) {
    if (token.level === 0 && token.nesting >= 0) {
      const [start, end] = token.map ?? [0, 0];
      tops.push({ tokens: [], start, end });
    }
    tops.at(-1)?.tokens.push(token);
  }
  return tops;
}

/** Whether a block that begins on this line ends what is before it for good. */
function isSafeStart(state: StateBlock, line: number): boolean {
  return line > 0 && state.isEmpty(line - 1) && (state.eMarks[line] ?? 0) < state.src.length;
}

function sourceOf(state: StateBlock, start: number, end: number): string {
  return state.src.slice(state.bMarks[start], (state.eMarks[end - 1] ?? 0) + 1);
}

const CLOSING_FENCE = /^[\s>]*(`{3,}|~{3,})\s*$/;

function isClosed(state: StateBlock, fence: Token): boolean {
  const [start, end] = fence.map ?? [0, 0];
  if (end - start < 2) return false;
  const mark = CLOSING_FENCE.exec(state.src.slice(state.bMarks[end - 1], state.eMarks[end - 1]))?.[1] ?? "";
  return mark[0] === fence.markup[0] && mark.length >= fence.markup.length;
}

function definedIn(tops: readonly Top[], before: References, all: References): References {
  const defined = Object.assign(none(), before) as Record<string, Reference>;
  for (const token of tops.flatMap((top) => top.tokens)) {
    const label = token.type === "reference_definition" ? String(token.meta?.["label"]) : "";
    const reference = all[label];
    if (reference) defined[label] = reference;
  }
  return defined;
}
