/** An answer: its thought, its text, what became of it, and what can be done with it. */
import { useRef } from "preact/hooks";

import type { Answer, Message } from "../state/conversation";
import { regenerate, type Live } from "../state/generation";
import { words } from "../words";
import { backToComposer } from "./composing";
import { CopyButton } from "./CopyButton";
import { CopyMenu } from "./CopyMenu";
import { Degraded } from "./Degraded";
import { Ending } from "./Ending";
import { Phase } from "./Phase";
import { Prose } from "./Prose";
import { removeWithUndo } from "./removal";
import { ReplayButton, ReplayOutcome } from "./ReplayButton";
import { isStructured, StructuredAnswer } from "./Structured";
import { Thought } from "./Thought";
import { Timings } from "./Timings";
import { isTinted, TintButton, TintedText } from "./TintedText";
import { ToolButton } from "./ToolButton";
import { Versions } from "./Versions";
import { VoteTally } from "./VoteTally";

interface Props {
  message: Message;
  answer: Answer;
  now: Live | undefined;
}

export function AnswerMessage({ message, answer, now }: Props) {
  const w = words.value;
  const frame = useSteadyHeight(now);
  return (
    <div ref={frame} class="steady">
      <h2 class="unseen">{w.message.assistant}</h2>
      <VoteTally messageId={message.id} />
      <Thought id={message.id} answer={answer} now={now} />
      {now ? <LiveText message={message} now={now} /> : <Text message={message} text={message.text} />}
      {now ? <Phase id={message.id} /> : <Finished message={message} answer={answer} />}
    </div>
  );
}

function LiveText({ message, now }: { message: Message; now: Live }) {
  return <Text message={message} text={now.text.value} streaming />;
}

function Text({ message, text, streaming = false }: { message: Message; text: string; streaming?: boolean }) {
  void words.value;
  if (!text) return null;
  if (!streaming && isTinted(message)) return <TintedText message={message} />;
  if (isStructured(message)) return <StructuredAnswer message={message} text={text} complete={!streaming} />;
  return (
    <div class="text prose">
      <Prose text={text} streaming={streaming} />
    </div>
  );
}

function Finished({ message, answer }: { message: Message; answer: Answer }) {
  const w = words.value;
  function again(): void {
    regenerate(message.id);
    backToComposer();
  }
  return (
    <>
      <Degraded limits={answer.degraded} />
      <Ending id={message.id} text={message.text} answer={answer} />
      <div class="under">
        <Versions id={message.id} />
        <span class="quiet">
          <CopyButton text={message.text} />
          <CopyMenu messageId={message.id} />
          <ToolButton icon="again" label={w.message.regenerate} onClick={again} />
          <ReplayButton messageId={message.id} />
          <TintButton message={message} />
          <ToolButton icon="trash" label={w.message.remove} onClick={() => removeWithUndo(message.id)} />
        </span>
        <Timings answer={answer} />
      </div>
      <ReplayOutcome messageId={message.id} />
    </>
  );
}

/**
 * Keeps the height that an answer had when the window of its thought closed, so that nothing above it moves: the text that
 * follows fills the room. Only the last answer keeps it, until the next message.
 */
function useSteadyHeight(now: Live | undefined) {
  const frame = useRef<HTMLDivElement>(null);
  const before = useRef(now?.phase);
  const element = frame.current;
  if (before.current === "thinking" && now?.phase !== "thinking" && element?.querySelector(".thought-window")) {
    element.style.setProperty("--steady", `${element.offsetHeight}px`);
  }
  before.current = now?.phase;
  return frame;
}
