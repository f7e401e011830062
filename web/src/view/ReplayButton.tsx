/** Asks the same again, with the same seed and settings, and shows that the answer is the same, or where it differs first. */
import { signal } from "@preact/signals";

import type { Conversation, Id } from "../state/conversation";
import { siblings } from "../state/conversation";
import { live, replay } from "../state/generation";
import { current } from "../state/conversations";
import { words } from "../words";
import { Icon } from "./icons";
import { compare, obstacle, type Comparison } from "./replay/compare";
import "../style/replay.css";

export type Outcome = { kind: "running" } | { kind: "failed" } | Comparison;

/** What came of the replays in this tab, by the ids of both answers. */
const outcomes = signal<ReadonlyMap<Id, Outcome>>(new Map());

function note(ids: readonly (Id | undefined)[], outcome: Outcome | null): void {
  const next = new Map(outcomes.value);
  for (const id of ids) {
    if (id !== undefined && outcome) next.set(id, outcome);
    else if (id !== undefined) next.delete(id);
  }
  outcomes.value = next;
}

async function run(id: Id): Promise<void> {
  note([id], { kind: "running" });
  const known = new Set(siblings(current.value, id));
  let result: "same" | "different" | null = null;
  try {
    result = await replay(id);
  } catch {
    // The new answer says by itself what went wrong with it.
  }
  const conversation: Conversation = current.value;
  const made = siblings(conversation, id).findLast((each) => !known.has(each));
  const [first, again] = [conversation.messages[id], conversation.messages[made ?? ""]];
  note([id, made], result && first && again ? compare(first, again) : { kind: "failed" });
}

export function ReplayButton({ messageId }: { messageId: Id }) {
  const { replay: texts } = words.value.extras;
  const running = outcomes.value.get(messageId)?.kind === "running" || live.value.has(messageId);
  const why = obstacle(current.value.messages[messageId]?.answer);
  return (
    <button
      type="button"
      class="tool"
      title={why ? texts.cannot[why] : texts.why}
      aria-label={texts.button}
      disabled={running || why !== null}
      onClick={() => void run(messageId)}
    >
      <Icon name="replay" />
    </button>
  );
}

/** What came of the replay that this answer belongs to. */
export function ReplayOutcome({ messageId }: { messageId: Id }) {
  const { replay: texts } = words.value.extras;
  const outcome = outcomes.value.get(messageId);
  return (
    <div class="replay" aria-live="polite" data-kind={outcome?.kind}>
      {outcome && <Report outcome={outcome} />}
      {outcome && outcome.kind !== "running" && (
        <button type="button" class="link" onClick={() => note([messageId], null)}>
          {texts.dismiss}
        </button>
      )}
    </div>
  );
}

function Report({ outcome }: { outcome: Outcome }) {
  const { replay: texts } = words.value.extras;
  if (outcome.kind === "running") return <p>{texts.running}</p>;
  if (outcome.kind === "failed") return <p>{texts.failed}</p>;
  if (outcome.kind === "same")
    return (
      <p>
        <Icon name="check" /> {texts.same(outcome.characters)}
      </p>
    );
  const { at, before, left, right } = outcome.difference;
  return (
    <>
      <p>{outcome.where === "thought" ? texts.inThought(at) : texts.different(at)}</p>
      <dl>
        <dt>{texts.first}</dt>
        <dd>
          …{before}
          <del>{left || texts.end}</del>
        </dd>
        <dt>{texts.again}</dt>
        <dd>
          …{before}
          <ins>{right || texts.end}</ins>
        </dd>
      </dl>
      <p class="hint">{texts.hint}</p>
    </>
  );
}
