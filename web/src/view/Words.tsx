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
    return <>{this.parsed.children.map(inline)}</>;
  }
}

function inline(node: Inline): ComponentChild {
  if (typeof node === "string") return node;
  switch (node.type) {
    case "strong":
      return <strong>{node.children.map(inline)}</strong>;
    case "em":
      return <em>{node.children.map(inline)}</em>;
    case "del":
      return <del>{node.children.map(inline)}</del>;
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
      <bdi>{children.map(inline)}</bdi>
      {host === null ? null : (
        <>
          {" "}
          <bdi class="host">({host})</bdi>
        </>
      )}
    </a>
  );
}
