/** What is inside a paragraph, a heading or a cell. It is parsed here, when it is first shown, and again only if it has changed. */
import { Component, type ComponentChild } from "preact";

import { inlines, type Inline, type Inlines, type References } from "../text/inline";
import { visible } from "../text/visible";
import { Formula } from "./Formula";

interface Props {
  content: string;
  references: References;
}

export class Words extends Component<Props> {
  private parsed: Inlines | null = null;

  override shouldComponentUpdate(next: Props): boolean {
    if (next.content === this.props.content && !this.looksUpOther(next.references)) return false;
    this.parsed = null;
    return true;
  }

  /** Whether a link definition that this content asks for is another one there. */
  private looksUpOther(next: References): boolean {
    const before = this.props.references;
    if (next === before) return false;
    return [...(this.parsed?.labels ?? [])].some((label) => next[label]?.href !== before[label]?.href);
  }

  override render({ content, references }: Props): ComponentChild {
    this.parsed ??= inlines(content, references);
    return <>{all(this.parsed.children)}</>;
  }
}

/** What may not stand at the beginning of a line. */
const ENDS = /^[,.;:!?)\]}%»”’、。，；：！？）】」』]+/u;

const SHORT = 40; // characters of a formula that is not broken over lines

/** A formula is kept on one line with the mark that follows it: "x^2" and its comma. */
function all(nodes: readonly Inline[]): ComponentChild[] {
  return nodes.map((node, index) => {
    const before = nodes[index - 1];
    if (typeof node === "string") return isFormula(before) ? node.replace(ENDS, "") : node;
    if (!isFormula(node)) return inline(node);
    const after = nodes[index + 1];
    const mark = typeof after === "string" ? ENDS.exec(after)?.[0] : undefined;
    return (
      <span key={index} class={node.tex.length > SHORT ? "whole" : "whole short"}>
        <Formula {...node} />
        {mark}
      </span>
    );
  });
}

function isFormula(node: Inline | undefined): node is Extract<Inline, { type: "formula" }> {
  return typeof node === "object" && node.type === "formula" && !node.display;
}

function inline(node: Inline): ComponentChild {
  if (typeof node === "string") return node;
  switch (node.type) {
    case "strong":
      return <strong>{all(node.children)}</strong>;
    case "em":
      return <em>{all(node.children)}</em>;
    case "del":
      return <del>{all(node.children)}</del>;
    case "code":
      return <code>{visible(node.text)}</code>;
    case "formula":
      return <Formula tex={node.tex} display={node.display} source={node.source} />;
    case "break":
      return <br />;
    case "link":
      return <Link {...node} />;
  }
}

function Link({ href, host, children }: { href: string; host: string | null; children: Inline[] }) {
  return (
    <a href={href} target="_blank" rel="noopener noreferrer">
      <bdi>{all(children)}</bdi>
      {host === null ? null : (
        <>
          {" "}
          <bdi class="host">({host})</bdi>
        </>
      )}
    </a>
  );
}
