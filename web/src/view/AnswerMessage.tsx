/** An answer: its thought, its text, what became of it, and what can be done with it. */
import { useRef } from "preact/hooks";

import type { Answer, Message } from "../state/conversation";
import { regenerate, type Live } from "../state/generation";
import { words } from "../words";
import { CopyButton } from "./CopyButton";
import { Ending } from "./Ending";
import { Markdown } from "./Markdown";
import { Phase } from "./Phase";
import { removeWithUndo } from "./removal";
import { Thought } from "./Thought";
import { Timings } from "./Timings";
import { ToolButton } from "./ToolButton";
import { Versions } from "./Versions";

interface Props {
  message: Message;
  answer: Answer;
  now: Live | undefined;
}

export function AnswerMessage({ message, answer, now }: Props) {
  const w = words.value;
  const frame = useSteadyHeight(now);
  return (
    <div ref={frame}>
      <h2 class="unseen">{w.message.assistant}</h2>
      <Thought id={message.id} answer={answer} now={now} />
      {now ? <LiveText now={now} /> : <Text text={message.text} />}
      {now ? <Phase id={message.id} /> : <Finished message={message} answer={answer} />}
    </div>
  );
}

function LiveText({ now }: { now: Live }) {
  return <Text text={now.text.value} streaming />;
}

function Text({ text, streaming = false }: { text: string; streaming?: boolean }) {
  void words.value;
  if (!text) return null;
  return (
    <div class="text prose">
      <Markdown text={text} streaming={streaming} />
    </div>
  );
}

function Finished({ message, answer }: { message: Message; answer: Answer }) {
  const w = words.value;
  return (
    <>
      <Ending id={message.id} text={message.text} answer={answer} />
      <div class="under">
        <Versions id={message.id} />
        <span class="quiet">
          <CopyButton text={message.text} />
          <ToolButton icon="again" label={w.message.regenerate} onClick={() => regenerate(message.id)} />
          <ToolButton icon="trash" label={w.message.remove} onClick={() => removeWithUndo(message.id)} />
        </span>
        <Timings answer={answer} />
      </div>
    </>
  );
}

/**
 * Keeps the height that an answer had when its thought closed, so that nothing above it moves: the text that follows fills
 * the room. The reader's own closing may shrink it.
 */
function useSteadyHeight(now: Live | undefined) {
  const frame = useRef<HTMLDivElement>(null);
  const before = useRef(now?.phase);
  const element = frame.current;
  if (element && before.current === "thinking" && now?.phase !== "thinking") {
    element.style.minHeight = `${element.offsetHeight}px`;
  }
  before.current = now?.phase;
  return frame;
}
