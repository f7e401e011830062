/** One row of a tally: the answer, a bar, how many gave it, and these answers. */
import type { ComponentChildren } from "preact";

import { dialogWords } from "../../words/dialogs";
import { Prose } from "../Prose";

interface Props {
  answer: string | null; // null: no boxed answer
  count: number;
  total: number;
  first: boolean;
  children: ComponentChildren;
}

export function Result({ answer, count, total, first, children }: Props) {
  const { vote } = dialogWords.value;
  return (
    <li class={first ? "first" : ""}>
      <span class="vote-answer" title={answer ?? undefined}>
        {answer === null ? <em>{vote.noBox}</em> : <Answer text={answer} />}
      </span>
      <span class="vote-count" aria-label={vote.votes(count)}>
        ×{count}
      </span>
      <span class="vote-bar" aria-hidden="true">
        <span style={{ width: `${(100 * count) / total}%` }} />
      </span>
      <span class="vote-paths">{children}</span>
    </li>
  );
}

const LONGEST = 200; // characters of a formula that is set; longer ones stay text

/** A box holds a formula; plain words and numbers need no setting, and `\text{…}` around all of it none either. */
function Answer({ text }: { text: string }) {
  const plain = /^\\text(?:bf|it|rm)?\s*\{([^{}\\]*)\}$/u.exec(text)?.[1] ?? text;
  if (!/[\\^_{}]/u.test(plain) || plain.length > LONGEST) return <>{plain}</>;
  return <Prose text={`\\(${plain}\\)`} streaming={false} />;
}
