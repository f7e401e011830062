/** What a new conversation shows: what this is, whether it is ready, and questions that suit a model that thinks. */
import { send } from "../state/generation";
import { status } from "../state/server";
import { words } from "../words";
import { Sign } from "./icons";

export function Empty() {
  const w = words.value;
  const now = status.value;
  return (
    <>
      <Sign />
      <h2>{w.empty.heading}</h2>
      <p>{now ? (now.state === "ready" ? w.empty.about(now.model, now.contextLength) : now.model) : "\u00a0"}</p>
      <ul class="prompts" aria-label={w.empty.examples}>
        {w.empty.prompts.map(({ name, text }) => (
          <li key={name}>
            <button type="button" onClick={() => send(text, [])}>
              <b>{name}</b> <span>{text}</span>
            </button>
          </li>
        ))}
      </ul>
    </>
  );
}
