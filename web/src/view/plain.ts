/** A text in Markdown as plain text: what a reader sees, without marks. Formulas stay as they were written. */
import { parse } from "../text/blocks";
import { inlines, type Inline, type References } from "../text/inline";
import type { Leaf, Node } from "../text/tree";

export function plainText(markdown: string): string {
  return parse(markdown)
    .map((block) => ofNode(block.node, block.references))
    .join("\n\n");
}

function ofNode(node: Node, references: References): string {
  const leaf = (each: Leaf): string => inlines(each.content, references).children.map(ofInline).join("");
  const all = (nodes: Node[], gap: string): string => nodes.map((each) => ofNode(each, references)).join(gap);
  switch (node.type) {
    case "paragraph":
    case "words":
    case "heading":
      return leaf(node.leaf);
    case "quote":
      return indented(all(node.children, "\n\n"), "> ", "> ");
    case "list":
      return node.items
        .map((item, i) => {
          const mark = node.start === null ? "- " : `${node.start + i}. `;
          const task = item.done === null ? "" : item.done ? "[x] " : "[ ] ";
          return indented(task + all(item.children, node.tight ? "\n" : "\n\n"), mark, " ".repeat(mark.length));
        })
        .join(node.tight ? "\n" : "\n\n");
    case "table":
      return [node.head, ...node.rows].map((row) => row.map(leaf).join("\t")).join("\n");
    case "code":
      return node.text.replace(/\n$/u, "");
    case "rule":
      return "---";
  }
}

function indented(text: string, first: string, others: string): string {
  return text
    .split("\n")
    .map((line, i) => (line === "" && i > 0 ? "" : (i === 0 ? first : others) + line))
    .join("\n");
}

function ofInline(inline: Inline): string {
  if (typeof inline === "string") return inline;
  switch (inline.type) {
    case "code":
      return inline.text;
    case "formula":
      return inline.source;
    case "break":
      return "\n";
    case "link": {
      const text = inline.children.map(ofInline).join("");
      return text === inline.href || text === "" ? inline.href : `${text} (${inline.href})`;
    }
    default:
      return inline.children.map(ofInline).join("");
  }
}
