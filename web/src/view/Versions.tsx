/** Which of several versions of a message is shown: "‹ 2/3 ›". */
import { siblings, withChosen } from "../state/conversation";
import { change, current } from "../state/conversations";
import { words } from "../words";
import { Icon } from "./icons";

export function Versions({ id }: { id: string }) {
  const w = words.value;
  const all = siblings(current.value, id);
  if (all.length < 2) return null;
  const at = all.indexOf(id);
  const show = (index: number): void => {
    const other = all[index];
    if (other !== undefined) change((conversation) => withChosen(conversation, other));
  };
  return (
    <span class="versions" role="group" aria-label={w.message.branch(at + 1, all.length)}>
      <button type="button" class="tool" aria-label={w.message.previous} disabled={at === 0} onClick={() => show(at - 1)}>
        <Icon name="left" />
      </button>
      <span aria-hidden="true">
        {at + 1}/{all.length}
      </span>
      <button
        type="button"
        class="tool"
        aria-label={w.message.next}
        disabled={at === all.length - 1}
        onClick={() => show(at + 1)}
      >
        <Icon name="right" />
      </button>
    </span>
  );
}
