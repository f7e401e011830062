/** Opens one answer of a vote, and says how far it is. */
import type { Message } from "../../state/conversation";
import { live, type Live } from "../../state/generation";
import { dialogWords } from "../../words/dialogs";
import { second } from "../ui";

interface Props {
  path: Message;
  number: number;
  shown: boolean;
  /** Whether its state is written beside the number; it always is in the name. */
  verbose: boolean;
  onShow: () => void;
}

export function PathButton({ path, number, shown, verbose, onShow }: Props) {
  const { vote } = dialogWords.value;
  const now = live.value.get(path.id);
  if (now) void second.value; // its number of tokens is plain
  const state = now ? progress(now) : ending(path);
  return (
    <button
      type="button"
      class="vote-path"
      data-path={path.id}
      data-running={now !== undefined}
      aria-pressed={shown}
      aria-label={`${vote.path(number)}: ${state}`}
      title={state}
      onClick={onShow}
    >
      {number}
      {now && verbose && <span class="vote-state">{state}</span>}
    </button>
  );
}

function progress(now: Live): string {
  const { state } = dialogWords.value.vote;
  if (now.phase === "thinking" || now.phase === "answering") return state[now.phase](now.tokens);
  return now.phase === "reading" ? state.reading : state.waiting;
}

function ending({ answer }: Message): string {
  const { state } = dialogWords.value.vote;
  if (answer?.state === "stopped" || answer?.state === "broken") return state[answer.state];
  return answer?.finishReason === "length" ? state.length : state.done;
}
