/** What is inside a paragraph, a heading or a cell: text, emphasis, links, code, formulas. Parsed only where it is shown. */
import type { Token } from "markdown-it";

import { hostToShow, safeLink } from "./links";
import { parser } from "./parser";

export type Inline =
  | string
  | { type: "strong" | "em" | "del"; children: Inline[] }
  | { type: "link"; href: string; host: string | null; children: Inline[] }
  | { type: "code"; text: string }
  | { type: "formula"; tex: string; display: boolean; source: string }
  | { type: "break" };

export interface Reference {
  href: string;
  title: string;
}

/** The link definitions of a text, by their normalized label. Without a prototype: labels are a stranger's. */
export type References = Readonly<Record<string, Reference>>;

export interface Inlines {
  children: Inline[];
  /** The labels that were looked up among the definitions, whether they were found or not. */
  labels: ReadonlySet<string>;
}

/** Emphasis deeper than this is shown without. */
const DEEPEST = 16;

export function inlines(content: string, references: References): Inlines {
  const labels = new Set<string>();
  const recorded = new Proxy(references, {
    get(target, label) {
      if (typeof label !== "string") return undefined;
      labels.add(label);
      return target[label];
    },
  });
  const [token] = parser.parseInline(content, { references: recorded as Record<string, Reference> });
  return { children: tree(token?.children ?? []), labels };
}

const WRAPS: ReadonlyMap<string, "strong" | "em" | "del"> = new Map([
  ["strong_open", "strong"],
  ["em_open", "em"],
  ["s_open", "del"],
]);

/** Makes a tree of the flat list of tokens. What is nested too deep joins its parent. */
function tree(tokens: readonly Token[]): Inline[] {
  const top: Inline[] = [];
  const open: Inline[][] = [top]; // the lists that receive children, the innermost last
  const links: { node: Extract<Inline, { type: "link" }>; from: number }[] = [];
  tokens.forEach((token, index) => {
    const here = open.at(-1) ?? top;
    const wrap = WRAPS.get(token.type);
    if (wrap) open.push(open.length > DEEPEST ? here : added(here, { type: wrap, children: [] }).children);
    else if (token.type === "link_open") {
      const node = added(here, linkTo(String(token.attrGet("href"))));
      if (node.type === "link") links.push({ node, from: index });
      open.push(node.children);
    } else if (token.nesting < 0) {
      if (open.length > 1) open.pop();
      const link = token.type === "link_close" ? links.pop() : undefined;
      if (link) link.node.host = hostOf(link.node.href, tokens.slice(link.from, index));
    } else here.push(...leaf(token, links.length > 0));
  });
  return top;
}

function added<T extends Inline>(list: Inline[], node: T): T {
  list.push(node);
  return node;
}

type Parent = Extract<Inline, { children: Inline[] }>;

function linkTo(address: string): Parent {
  const link = safeLink(address);
  return link ? { type: "link", href: link.href, host: link.host, children: [] } : { type: "em", children: [] };
}

function hostOf(href: string, words: readonly Token[]): string | null {
  const link = safeLink(href);
  return link && hostToShow(link, textOf(words));
}

/** The words of some tokens, without their form. */
function textOf(tokens: readonly Token[]): string {
  let text = "";
  for (const token of tokens) {
    if (token.type === "image") text += textOf(token.children ?? []);
    else if (token.type === "softbreak" || token.type === "hardbreak") text += " ";
    else text += token.content;
  }
  return text;
}

function leaf(token: Token, inLink: boolean): Inline[] {
  switch (token.type) {
    case "softbreak":
      return ["\n"];
    case "hardbreak":
      return [{ type: "break" }];
    case "code_inline":
      return [{ type: "code", text: token.content }];
    case "formula":
      return [{ type: "formula", tex: token.content, display: token.info === "display", source: token.markup }];
    case "image":
      return image(token, inLink);
    default:
      return token.content ? [token.content] : [];
  }
}

/** An image becomes a link to it: the page loads nothing because an answer says so. */
function image(token: Token, inLink: boolean): Inline[] {
  const words = textOf(token.children ?? []);
  const link = safeLink(String(token.attrGet("src")));
  if (inLink || !link) return words ? [words] : [];
  return [{ type: "link", href: link.href, host: hostToShow(link, words), children: [words || link.href] }];
}
