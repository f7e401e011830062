/** Shows an answer's tokens tinted by their probability, where the user switched that on. Loaded with the first use. */
import { signal } from "@preact/signals";

import type { TokenLogprob } from "../api/types";
import type { Id, Message } from "../state/conversation";
import { words } from "../words";
import { Icon } from "./icons";
import { lazy } from "./parts/lazy";

const Tokens = lazy<{ tokens: TokenLogprob[]; onClose?: () => void }>(
  async () => (await import("./logprobs/Tokens")).Tokens,
);

/** The answers that are shown with their probabilities. */
const tinted = signal<ReadonlySet<Id>>(new Set());

export function isTinted(message: Message): boolean {
  return tinted.value.has(message.id) && Boolean(message.answer?.logprobs?.length);
}

function toggle(id: Id): void {
  const next = new Set(tinted.value);
  if (!next.delete(id)) next.add(id);
  tinted.value = next;
}

/** Switches the tint of an answer that has probabilities. */
export function TintButton({ message }: { message: Message }) {
  const { tint } = words.value.extras;
  if (!message.answer?.logprobs?.length) return null;
  const on = isTinted(message);
  const label = on ? tint.hide : tint.show;
  return (
    <button
      type="button"
      class="tool"
      aria-pressed={on}
      aria-label={tint.show}
      title={label}
      onClick={() => toggle(message.id)}
    >
      <Icon name="tint" />
    </button>
  );
}

export function TintedText({ message }: { message: Message }) {
  return isTinted(message) ? <Tokens tokens={message.answer?.logprobs ?? []} /> : null;
}
