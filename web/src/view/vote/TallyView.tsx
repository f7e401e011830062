/** Shows how often each boxed answer was given so far, as bars, and opens any of the answers. */
import "../../style/vote.css";
import { withChosen, type Id, type Message } from "../../state/conversation";
import { live, stop } from "../../state/generation";
import { change, current } from "../../state/conversations";
import { dialogWords } from "../../words/dialogs";
import { Result } from "./Result";
import { PathButton } from "./PathButton";
import { pathsOf } from "./paths";
import { tally, type Tally } from "./tally";

export function TallyView({ messageId }: { messageId: Id }) {
  const { vote } = dialogWords.value;
  const paths = pathsOf(current.value, messageId);
  const running = paths.filter((path) => live.value.has(path.id));
  const counted = tally(paths.map((path) => ({ id: path.id, text: textOf(path), running: live.value.has(path.id) })));
  const rows = [
    ...counted.candidates,
    ...(counted.withoutBox.length ? [{ answer: null, paths: counted.withoutBox }] : []),
  ];
  const number = new Map(paths.map((path, i) => [path.id, i + 1]));
  const button = (id: Id, verbose: boolean) => {
    const path = paths.find((each) => each.id === id);
    return (
      path && (
        <PathButton
          key={id}
          path={path}
          number={number.get(id) ?? 0}
          shown={id === messageId}
          verbose={verbose}
          onShow={() => show(id)}
        />
      )
    );
  };
  const pending = paths.filter((path) => !rows.some((row) => row.paths.includes(path.id)));
  return (
    <section class="vote" aria-label={vote.title(paths.length)}>
      <header>
        <h3>{vote.title(paths.length)}</h3>
        <span class="vote-progress">{vote.progress(paths.length - counted.running, paths.length)}</span>
        {running.length > 0 && (
          <button type="button" class="link" onClick={() => running.forEach((path) => stop(path.id))}>
            {vote.stopAll}
          </button>
        )}
      </header>
      <output class="vote-summary">{counted.running === 0 && summary(counted)}</output>
      <ul>
        {rows.map((row, place) => (
          <Result
            key={row.answer ?? " "}
            answer={row.answer}
            count={row.paths.length}
            total={paths.length}
            first={place === 0 && row.answer !== null && !isTie(counted)}
          >
            {row.paths.map((id) => button(id, false))}
          </Result>
        ))}
      </ul>
      {pending.length > 0 && <div class="vote-pending">{pending.map((path) => button(path.id, true))}</div>}
    </section>
  );
}

/** Shows another answer. It is drawn anew with its tally, so the focus is put on the same button there. */
function show(id: Id): void {
  change((conversation) => withChosen(conversation, id));
  requestAnimationFrame(() => document.querySelector<HTMLElement>(`.vote [data-path="${id}"]`)?.focus());
}

/** What is there of an answer, without its thought. */
function textOf(path: Message): string {
  return live.value.get(path.id)?.text.value ?? path.text;
}

function isTie({ candidates: [first, second] }: Tally): boolean {
  return first !== undefined && first.paths.length === second?.paths.length;
}

function summary(counted: Tally): string {
  const { vote } = dialogWords.value;
  const [first] = counted.candidates;
  if (!first) return vote.noneAtAll;
  return isTie(counted) ? vote.tie : vote.winner(first.answer, first.paths.length, counted.total);
}
