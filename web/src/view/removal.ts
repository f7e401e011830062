/** Deleting with a way back: the message and what is below it, or a whole conversation. */
import { change, current, remove, undoRemove } from "../state/conversations";
import { live, removeMessage, stop } from "../state/generation";
import { newId } from "../state/ids";
import { words } from "../words";
import { restored } from "./restored";
import { toast } from "./ui";

export function removeWithUndo(messageId: string): void {
  if (live.value.has(messageId)) stop(messageId);
  const before = current.value;
  removeMessage(messageId);
  const undo = (): void => change((now) => (now.id === before.id ? restored(now, before, messageId, newId) : now));
  toast(words.value.message.removed, { label: words.value.sidebar.undo, run: undo });
}

export function removeConversation(id: string, title: string): void {
  remove(id);
  const w = words.value.sidebar;
  toast(w.removed(title), { label: w.undo, run: undoRemove });
}
