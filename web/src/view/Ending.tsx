/** Says why an answer is not whole, and offers what helps. */
import type { Fault } from "../api/types";
import type { Answer } from "../state/conversation";
import { continueAnswer, regenerate } from "../state/generation";
import { backToComposer } from "./composing";
import { words, type Words } from "../words";

export function Ending({ id, text, answer }: { id: string; text: string; answer: Answer }) {
  const w = words.value;
  const said = explanation(w, text, answer);
  if (!said) return null;
  const goesOn = text !== "" || answer.thought !== "";
  function help(): void {
    if (goesOn) continueAnswer(id);
    else regenerate(id);
    backToComposer();
  }
  const full = answer.fault?.kind === "context";
  return (
    <div class={answer.fault ? "note bad" : "note"} role="note">
      <span>
        {said}
        {answer.fault?.message ? <small>{answer.fault.message}</small> : null}
      </span>
      {full ? null : (
        <button type="button" class="button" onClick={help}>
          {goesOn ? w.message.continue : w.message.regenerate}
        </button>
      )}
    </div>
  );
}

export function faultInWords(w: Words, fault: Fault): string {
  const { kind, room } = fault;
  return kind === "context" && room ? w.fault.room(room.used, room.limit) : w.fault[kind];
}

function explanation(w: Words, text: string, answer: Answer): string | null {
  if (answer.fault) return faultInWords(w, answer.fault);
  if (answer.state === "stopped") return w.ending.stopped;
  if (answer.state === "broken") return w.ending.broken;
  if (answer.state === "running") return null; // another tab writes it, or it is about to be attached to
  const count = answer.usage?.completionTokens;
  if (answer.finishReason === "length") {
    return text === "" && answer.thought !== "" && count ? w.ending.spent(count) : w.ending.length(count);
  }
  return text === "" ? w.ending.empty : null;
}
