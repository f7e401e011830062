/** A text in Markdown, which may still be growing: see `text/blocks.ts` for what is parsed again. */
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";

import { Blocks } from "../text/blocks";
import { BlockView } from "./BlockView";
import "../style/prose.css";

interface Props {
  text: string;
  streaming: boolean;
}

export function Markdown({ text, streaming }: Props) {
  const paced = usePaced(text, streaming);
  const blocks = useMemo(() => new Blocks(), []);
  const shown = useMemo(() => blocks.update(paced, !streaming), [blocks, paced, streaming]);
  return (
    <div class="markdown">
      {shown.map((block, index) => (
        <BlockView key={index} block={block} />
      ))}
    </div>
  );
}

const REST = 3; // times as long as a change took
const SHORT = 8; // milliseconds: a change that needs no rest

/**
 * The text to show now: after a change that took long, the next one waits. So a text of any shape, even one huge paragraph, leaves most
 * of the time to the reader, and a text that is complete is shown at once.
 */
function usePaced(text: string, streaming: boolean): string {
  const [, wake] = useState(0);
  const pace = useRef({ shown: text, due: 0 }).current;
  const began = performance.now();
  const wait = pace.due - began;
  if (!streaming || wait <= 0) pace.shown = text;
  const late = pace.shown !== text;
  useEffect(() => {
    if (!late) return undefined;
    const timer = setTimeout(() => wake((count) => count + 1), Math.max(0, wait));
    return () => clearTimeout(timer);
  });
  useLayoutEffect(() => {
    const script = performance.now() - began;
    const frame = requestAnimationFrame((frameBegan) => {
      setTimeout(() => {
        const took = script + performance.now() - Math.max(frameBegan, began + script);
        pace.due = took > SHORT ? performance.now() + REST * took : 0;
      });
    });
    return () => cancelAnimationFrame(frame);
  }, [pace.shown]);
  return pace.shown;
}
