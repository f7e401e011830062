/** Asks the question in the composer several times at once, so that the boxed answers can be compared. */
import { signal } from "@preact/signals";
import { useId, useState } from "preact/hooks";

import "../style/vote-button.css";
import type { Attachment } from "../state/conversation";
import { vote } from "../state/generation";
import { words } from "../words";
import { Icon } from "./icons";
import { Menu } from "./Menu";

export const LEAST = 3;
export const MOST = 16; // the server's limit of `n`
const COMMON = [3, 5, 8, 16];

interface Props {
  draft: { text: string; attachments: Attachment[] };
  onSent?: () => void;
  disabled?: boolean;
}

const last = signal(5); // the number that was asked for last in this tab

export function VoteButton({ draft, onSent, disabled = false }: Props) {
  const { voteButton } = words.value.extras;
  const ask = (count: number) => {
    last.value = count;
    void vote(draft.text, draft.attachments, count);
    onSent?.();
  };
  const label = (
    <>
      <Icon name="vote" />
      <span class="tool-word">{voteButton.open}</span>
    </>
  );
  return (
    <Menu label={voteButton.why} button={label} buttonClass="tool pill" panelClass="vote-menu">
      <VoteForm blocked={disabled} empty={draft.text.trim() === "" && draft.attachments.length === 0} onAsk={ask} />
    </Menu>
  );
}

function VoteForm({ empty, blocked, onAsk }: { empty: boolean; blocked: boolean; onAsk: (count: number) => void }) {
  const { voteButton } = words.value.extras;
  const id = useId();
  const [text, setText] = useState(String(last.value));
  const count = /^\d{1,2}$/u.test(text.trim()) ? Number(text) : Number.NaN;
  const fits = count >= LEAST && count <= MOST;
  return (
    <form
      aria-label={voteButton.title}
      onSubmit={(event) => {
        event.preventDefault();
        if (!fits || empty || blocked) return;
        event.currentTarget.closest<HTMLElement>("[popover]")?.hidePopover();
        onAsk(count);
      }}
    >
      <p>{voteButton.explain}</p>
      <div class="counts">
        <label for={id}>{voteButton.count}</label>
        <input
          id={id}
          type="number"
          min={LEAST}
          max={MOST}
          value={text}
          aria-invalid={!fits}
          aria-describedby={`${id}-why`}
          onInput={(event) => setText(event.currentTarget.value)}
        />
        {COMMON.map((each) => (
          <button
            key={each}
            type="button"
            class="button"
            aria-pressed={each === count}
            onClick={() => setText(String(each))}
          >
            {each}
          </button>
        ))}
      </div>
      <output id={`${id}-why`} class="why">
        {fits ? empty && voteButton.needsText : voteButton.bounds(LEAST, MOST)}
      </output>
      <button type="submit" class="button primary" disabled={!fits || empty || blocked}>
        {voteButton.ask(fits ? count : last.value)}
      </button>
    </form>
  );
}
