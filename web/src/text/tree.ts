/** The blocks of a text as plain data. Inline content stays a string (a `Leaf`) until it is shown. */
import type { Token } from "markdown-it";

export interface Leaf {
  content: string;
}

export type Align = "left" | "center" | "right" | null;

export interface Item {
  /** Of a task list: whether it is done. */
  done: boolean | null;
  children: Node[];
}

export type Node =
  | { type: "paragraph"; leaf: Leaf }
  | { type: "words"; leaf: Leaf } // a paragraph of a tight list: without space around it
  | { type: "heading"; level: number; leaf: Leaf }
  | { type: "quote"; children: Node[] }
  | { type: "list"; start: number | null; tight: boolean; items: Item[] } // start: null for bullets
  | { type: "table"; aligns: Align[]; head: Leaf[]; rows: Leaf[][] }
  | { type: "code"; language: string; text: string; closed: boolean }
  | { type: "rule" };

/** Reads the flat list of the parser's tokens. Its depth is bounded by the parser. */
export class TreeReader {
  private position = 0;

  constructor(
    private readonly tokens: readonly Token[],
    /** Whether a fence that begins and ends on these lines has its closing mark. */
    private readonly isClosed: (token: Token) => boolean,
  ) {}

  /** The nodes up to the end of the list, or to a closing token, which is consumed. */
  nodes(): Node[] {
    const nodes: Node[] = [];
    for (;;) {
      const token = this.tokens[this.position++];
      if (!token || token.nesting < 0) return nodes;
      const node = this.node(token);
      if (node) nodes.push(node);
    }
  }

  private node(token: Token): Node | null {
    switch (token.type) {
      case "paragraph_open":
        return { type: token.hidden ? "words" : "paragraph", leaf: this.leaf() };
      case "heading_open":
        return { type: "heading", level: Number(token.tag.slice(1)), leaf: this.leaf() };
      case "blockquote_open":
        return { type: "quote", children: this.nodes() };
      case "bullet_list_open":
        return this.list(null);
      case "ordered_list_open":
        return this.list(Number(token.attrGet("start") ?? 1));
      case "table_open":
        return this.table();
      case "fence":
        return { type: "code", language: languageOf(token.info), text: token.content, closed: this.isClosed(token) };
      case "code_block":
        return { type: "code", language: "", text: token.content, closed: false };
      case "hr":
        return { type: "rule" };
      default:
        return null; // a link definition
    }
  }

  /** The inline token between an opening and a closing one. */
  private leaf(): Leaf {
    const content = this.tokens[this.position]?.content ?? "";
    this.position += 2;
    return { content };
  }

  private list(start: number | null): Node {
    const items: Item[] = [];
    while (this.tokens[this.position++]?.type === "list_item_open") items.push(taskItem(this.nodes()));
    const tight = !items.some((item) => item.children.some((child) => child.type === "paragraph"));
    return { type: "list", start, tight, items };
  }

  private table(): Node {
    const aligns: Align[] = [];
    const rows: Leaf[][] = [];
    for (;;) {
      const token = this.tokens[this.position++];
      if (!token || token.type === "table_close") break;
      if (token.type === "tr_open") rows.push([]);
      if (token.type !== "th_open" && token.type !== "td_open") continue;
      if (rows.length === 1) aligns.push(alignOf(token));
      rows.at(-1)?.push(this.leaf());
    }
    const [head = [], ...body] = rows;
    return { type: "table", aligns, head, rows: body.map(withoutEmptyEnd) };
  }
}

const TASK = /^\[([ xX])\]\s+/;

function taskItem(children: Node[]): Item {
  const [first, ...rest] = children;
  if (first?.type !== "paragraph" && first?.type !== "words") return { done: null, children };
  const mark = TASK.exec(first.leaf.content);
  if (!mark) return { done: null, children };
  const leaf = { content: first.leaf.content.slice(mark[0].length) };
  return { done: mark[1] !== " ", children: [{ ...first, leaf }, ...rest] };
}

const ALIGNS: ReadonlyMap<string, Align> = new Map([
  ["text-align:left", "left"],
  ["text-align:center", "center"],
  ["text-align:right", "right"],
]);

function alignOf(token: Token): Align {
  return ALIGNS.get(String(token.attrGet("style"))) ?? null;
}

/** The parser fills short rows with empty cells, which would be elements for nothing. */
function withoutEmptyEnd(row: Leaf[]): Leaf[] {
  let length = row.length;
  while (length > 1 && !row[length - 1]?.content) length--;
  return row.slice(0, length);
}

/** The first word after the opening mark: a stranger's text, only ever compared and shown. */
function languageOf(info: string): string {
  const word = info.trim().split(/[\s{,]/, 1)[0] ?? "";
  return word.length > 30 ? "" : word;
}
