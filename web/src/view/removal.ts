/** Deleting with a way back: the message and what is below it, or a whole conversation. */
import { change, current, remove, undoRemove } from "../state/library";
import { live, removeMessage, stop } from "../state/generation";
import { words } from "../words";
import { toast } from "./ui";

export function removeWithUndo(messageId: string): void {
  const before = current.value;
  if (live.value.has(messageId)) stop(messageId);
  removeMessage(messageId);
  const undo = (): void => change((now) => (now.id === before.id ? { ...now, ...treeOf(before) } : now));
  toast(words.value.message.removed, { label: words.value.sidebar.undo, run: undo });
}

function treeOf({ messages, children, chosen }: typeof current.value) {
  return { messages, children, chosen };
}

export function removeConversation(id: string, title: string): void {
  remove(id);
  const w = words.value.sidebar;
  toast(w.removed(title), { label: w.undo, run: undoRemove });
}
