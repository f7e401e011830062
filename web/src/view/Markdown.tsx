/** A text in Markdown, which may still be growing: see `text/blocks.ts` for what is parsed again. */
import { useMemo, useRef } from "preact/hooks";

import { Blocks } from "../text/blocks";
import { BlockView } from "./BlockView";
import { usePaced } from "./pace";
import "../style/prose.css";

interface Props {
  text: string;
  streaming: boolean;
}

export function Markdown({ text, streaming }: Props) {
  const root = useRef<HTMLDivElement>(null);
  const paced = usePaced(text, streaming, root);
  const blocks = useMemo(() => new Blocks(), []);
  const shown = useMemo(() => blocks.update(paced, !streaming), [blocks, paced, streaming]);
  return (
    <div class="markdown" ref={root}>
      {shown.map((block, index) => (
        <BlockView key={index} block={block} />
      ))}
    </div>
  );
}
