/** Says why an answer is not whole, and offers what helps. */
import type { Answer } from "../state/conversation";
import { continueAnswer, regenerate } from "../state/generation";
import { words } from "../words";
import { backToComposer } from "./composing";
import { explanation } from "./explanation";

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
