/**
 * Merges two copies of a conversation that two tabs changed: no message of either is lost, and the order does not matter.
 *
 * Of two copies of a message the one that was changed more often counts. A message whose parent was removed in the other tab
 * moves up to what is left above it.
 */
import type { Conversation, Id, Message } from "./conversation";

/** `mine` with all that `theirs` has; what is shown stays as in `mine`. */
export function merge(mine: Conversation, theirs: Conversation): Conversation {
  const removed = { ...theirs.removed, ...mine.removed };
  const all = new Map<Id, Message>();
  for (const message of [...Object.values(mine.messages), ...Object.values(theirs.messages)]) {
    const other = all.get(message.id);
    if (!(message.id in removed) && (!other || isNewer(message, other))) all.set(message.id, message);
  }
  const head = (theirs.headRevision ?? 0) > (mine.headRevision ?? 0) ? theirs : mine;
  return {
    ...mine,
    ...treeOf([...all.values()], removed, { ...theirs.chosen, ...mine.chosen }),
    ...(Object.keys(removed).length > 0 ? { removed } : {}),
    ...(head.headRevision === undefined ? {} : { headRevision: head.headRevision }),
    title: head.title,
    pinned: head.pinned,
    createdAt: Math.min(mine.createdAt, theirs.createdAt),
    updatedAt: Math.max(mine.updatedAt, theirs.updatedAt),
  };
}

/** Whether `message` counts rather than `other`, a copy of the same. */
export function isNewer(message: Message, other: Message): boolean {
  const [mine, theirs] = [message.revision ?? 0, other.revision ?? 0];
  if (mine !== theirs) return mine > theirs;
  // Both tabs changed it as often: keep the one with more text, and with as much, the same one in both tabs.
  const [a, b] = [contents(message), contents(other)];
  return a.length === b.length ? a > b : a.length > b.length;
}

function contents({ text, answer }: Message): string {
  return `${text}\u0000${answer?.thought ?? ""}\u0000${answer?.state ?? ""}`;
}

/** The tree of these messages, in the order in which they were made. */
export function treeOf(
  all: Message[],
  removed: Record<Id, Id | null>,
  chosen: Record<Id, Id>,
): Pick<Conversation, "messages" | "children" | "chosen"> {
  const known = new Set(all.map((message) => message.id));
  const messages: Record<Id, Message> = {};
  const children: Record<Id, Id[]> = {};
  for (const message of all.toSorted((a, b) => a.createdAt - b.createdAt || (a.id < b.id ? -1 : 1))) {
    const parent = standing(message.parent, known, removed);
    messages[message.id] = parent === message.parent ? message : { ...message, parent };
    (children[parent ?? ""] ??= []).push(message.id);
  }
  const kept = Object.entries(chosen).filter(([parent, child]) => children[parent]?.includes(child));
  return { messages, children, chosen: Object.fromEntries(kept) };
}

/** The nearest message above that is there. */
function standing(parent: Id | null, known: Set<Id>, removed: Record<Id, Id | null>): Id | null {
  let above = parent;
  const seen = new Set<Id>();
  while (above !== null && !known.has(above)) {
    if (seen.has(above)) return null;
    seen.add(above);
    above = removed[above] ?? null;
  }
  return above;
}
