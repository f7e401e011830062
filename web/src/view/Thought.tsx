/**
 * The model's thought: while it is made, a window of fixed height that shows its end; afterwards one line. What the reader
 * opens or closes stays as they left it. Nothing in here scrolls by itself, so it never takes the wheel from the page.
 */
import { signal, useComputed } from "@preact/signals";
import { useLayoutEffect, useRef, useState } from "preact/hooks";

import type { Live } from "../state/generation";
import type { Answer } from "../state/conversation";
import { words } from "../words";
import { Icon } from "./icons";
import { Prose } from "./Prose";
import { tailStart } from "./tail";
import { second } from "./ui";

/** What the reader decided, by message. */
const wishes = signal<ReadonlyMap<string, "open" | "closed">>(new Map());

export function Thought({ id, answer, now }: { id: string; answer: Answer; now: Live | undefined }) {
  const w = words.value;
  const wish = wishes.value.get(id);
  const thinking = now?.phase === "thinking";
  const begun = useComputed(() => now !== undefined && now.thought.value !== "").value;
  const { seconds, count } = useMeasure(answer, now);
  if (answer.thought === "" && !begun) return null;
  const shown = wish ?? (thinking ? "window" : "closed");
  const decide = (wanted: "open" | "closed"): void => {
    wishes.value = new Map(wishes.value).set(id, wanted);
  };
  const why = answer.thoughtClosed && w.thought.closed[answer.thoughtClosed];
  return (
    <section class="thought" aria-label={w.composer.thinking}>
      <div class="thought-bar">
        <button
          type="button"
          class="thought-head"
          aria-expanded={shown !== "closed"}
          onClick={() => decide(shown === "closed" ? "open" : "closed")}
        >
          <Icon name="right" />
          <span>
            {thinking ? <SoFar now={now} /> : w.thought.title(seconds, count)}
            {why ? <span class="why"> · {why}</span> : null}
          </span>
        </button>
        {shown === "window" ? (
          <button type="button" class="show-all" onClick={() => decide("open")}>
            {w.thought.showAll}
          </button>
        ) : null}
      </div>
      {shown === "window" && now ? <Window now={now} /> : null}
      {shown === "open" ? <Whole answer={answer} now={now} /> : null}
    </section>
  );
}

/** How long the thought took, and its tokens: of an answer that is still being made, as this page saw it. */
function useMeasure(answer: Answer, now: Live | undefined) {
  const since = useRef<number | undefined>(undefined);
  const seen = useRef<{ seconds: number; count: number } | undefined>(undefined);
  if (now?.phase === "thinking") since.current = now.phaseStartedAt;
  else if (now?.phase === "answering" && since.current !== undefined) {
    seen.current ??= { seconds: (now.phaseStartedAt - since.current) / 1000, count: now.tokens };
  }
  if (now && seen.current) return seen.current;
  return { seconds: answer.thoughtSeconds, count: answer.thoughtTokens };
}

function SoFar({ now }: { now: Live }) {
  void second.value; // the count is plain, so it is read again each second
  return <>{words.value.thought.soFar(now.tokens)}</>;
}

function Whole({ answer, now }: { answer: Answer; now: Live | undefined }) {
  const streaming = now?.phase === "thinking";
  return (
    <div class="thought-text prose">
      <Prose text={now?.thought.value || answer.thought} streaming={streaming} />
    </div>
  );
}

function Window({ now }: { now: Live }) {
  const text = now.thought.value;
  const from = tailStart(text);
  const tail = useRef<HTMLDivElement>(null);
  const [full, setFull] = useState(false);
  useLayoutEffect(() => {
    const element = tail.current;
    if (!full && element && element.offsetTop < 0) setFull(true); // what does not fit is cut at the top
  });
  return (
    <div class={full ? "thought-text thought-window full" : "thought-text thought-window"}>
      <div ref={tail} class="thought-tail prose" key={from}>
        <Prose text={from ? text.slice(from) : text} streaming />
      </div>
    </div>
  );
}
