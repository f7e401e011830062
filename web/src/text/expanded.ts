/** For tests: a text as one value that can be compared, its inline content included. */
import type { Block } from "./blocks";
import { inlines, type Inline, type References } from "./inline";

/** Blocks with each leaf's content parsed. */
export function expanded(blocks: readonly Block[]): unknown {
  return blocks.map((block) => withInlines(block.node, block.references));
}

function withInlines(value: unknown, references: References): unknown {
  if (Array.isArray(value)) return value.map((each) => withInlines(each, references));
  if (typeof value !== "object" || value === null) return value;
  if ("content" in value && typeof value.content === "string") return { inlines: inlines(value.content, references).children };
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, withInlines(each, references)]));
}

/** All inline nodes of a text, at any depth. */
export function inlineNodes(blocks: readonly Block[]): Exclude<Inline, string>[] {
  const found: Exclude<Inline, string>[] = [];
  const visit = (value: unknown): void => {
    if (Array.isArray(value)) value.forEach(visit);
    else if (typeof value === "object" && value !== null) {
      if ("type" in value && "children" in value) found.push(value as Exclude<Inline, string>);
      else if ("type" in value && ("tex" in value || "text" in value)) found.push(value as Exclude<Inline, string>);
      Object.values(value).forEach(visit);
    }
  };
  visit(expanded(blocks));
  return found;
}
