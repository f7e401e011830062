/** One block of a text: a paragraph, a list, a table. The elements of a block that has not changed are not touched. */
import type { ComponentChild } from "preact";
import { useRef } from "preact/hooks";

import type { Block } from "../text/blocks";
import type { References } from "../text/inline";
import type { Align, Item, Leaf, Node } from "../text/tree";
import { words } from "../words";
import { Code } from "./Code";
import { useScrollable } from "./scrollable";
import { still } from "./still";
import { Words } from "./Words";

export const BlockView = still(({ block }: { block: Block }) => show(block.node, block.references));

function show(node: Node, references: References, key?: number): ComponentChild {
  switch (node.type) {
    case "paragraph":
      return <p key={key}>{inside(node.leaf, references)}</p>;
    case "words":
      return <Words key={key} content={node.leaf.content} references={references} />;
    case "heading":
      return <Heading key={key} level={node.level} leaf={node.leaf} references={references} />;
    case "quote":
      return <blockquote key={key}>{all(node.children, references)}</blockquote>;
    case "list":
      return <List key={key} node={node} references={references} />;
    case "table":
      return <Table key={key} node={node} references={references} />;
    case "code":
      return <Code key={key} language={node.language} text={node.text} closed={node.closed} />;
    case "rule":
      return <hr key={key} />;
  }
}

function all(nodes: Node[], references: References): ComponentChild[] {
  return nodes.map((node, index) => show(node, references, index));
}

function inside(leaf: Leaf, references: References): ComponentChild {
  return <Words content={leaf.content} references={references} />;
}

/** Below the page's own headings: a message has one of the second level. */
function Heading({ level, leaf, references }: { level: number; leaf: Leaf; references: References }) {
  const Tag = `h${Math.min(6, level + 2)}` as "h3" | "h4" | "h5" | "h6";
  return <Tag class={`level-${level}`}>{inside(leaf, references)}</Tag>;
}

function List({ node, references }: { node: Extract<Node, { type: "list" }>; references: References }) {
  const items = node.items.map((item, index) => <ListItem key={index} item={item} references={references} />);
  const names = node.tight ? "tight" : "";
  if (node.start === null) return <ul class={names}>{items}</ul>;
  return (
    <ol class={names} start={node.start}>
      {items}
    </ol>
  );
}

const ListItem = still(({ item, references }: { item: Item; references: References }) => {
  if (item.done === null) return <li>{all(item.children, references)}</li>;
  const name = item.done ? words.value.text.done : words.value.text.open;
  return (
    <li class="task">
      <span class={item.done ? "task-mark done" : "task-mark"} role="img" aria-label={name} />
      <div>{all(item.children, references)}</div>
    </li>
  );
});

function Table({ node, references }: { node: Extract<Node, { type: "table" }>; references: References }) {
  const box = useRef<HTMLDivElement>(null);
  useScrollable(box);
  return (
    <div class="table" ref={box} data-scrolls role="group" aria-label={words.value.text.table}>
      <table>
        <thead>
          <Row head cells={node.head} aligns={node.aligns} references={references} />
        </thead>
        <tbody>
          {node.rows.map((row, index) => (
            <Row key={index} head={false} cells={row} aligns={node.aligns} references={references} />
          ))}
        </tbody>
      </table>
    </div>
  );
}

interface RowProps {
  head: boolean;
  cells: Leaf[];
  aligns: Align[];
  references: References;
}

const Row = still(({ head, cells, aligns, references }: RowProps) => {
  const cell = (leaf: Leaf, column: number): ComponentChild => {
    const align = aligns[column] ?? undefined;
    if (!head) return <td key={column} class={align}>{inside(leaf, references)}</td>;
    return <th key={column} scope="col" class={align}>{inside(leaf, references)}</th>;
  };
  return <tr>{cells.map(cell)}</tr>;
});
