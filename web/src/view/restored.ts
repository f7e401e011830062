/**
 * Takes back the deletion of a message and of what is below it.
 *
 * The messages get new ids: other tabs and the database have noted that those of the old ids are gone, and drop them.
 */
import { siblings, withChosen, withMessage, type Conversation, type Id } from "../state/conversation";

/** `now` with the messages that `before` has at and below `id`; as it is if their place is gone. */
export function restored(now: Conversation, before: Conversation, id: Id, newId: () => Id): Conversation {
  const parent = before.messages[id]?.parent ?? null;
  if (parent !== null && !now.messages[parent]) return now;
  const ids = new Map<Id, Id>();
  const queue = [id];
  let all = now;
  for (let old = queue.shift(); old !== undefined; old = queue.shift()) {
    const message = before.messages[old];
    if (!message) continue;
    ids.set(old, newId());
    const above = message.parent === null ? null : (ids.get(message.parent) ?? message.parent);
    all = withMessage(all, { ...message, id: ids.get(old) ?? old, parent: above });
    queue.push(...(before.children[old] ?? []));
  }
  return inOrder(withChoices(all, before, ids), ids.get(id) ?? id);
}

function withChoices(all: Conversation, before: Conversation, ids: ReadonlyMap<Id, Id>): Conversation {
  let next = all;
  for (const [old, mine] of ids) {
    const key = before.messages[old]?.parent ?? "";
    if ((before.chosen[key] ?? before.children[key]?.at(-1)) === old) next = withChosen(next, mine);
  }
  return next;
}

/** The restored message stands among its siblings where it was. */
function inOrder(all: Conversation, id: Id): Conversation {
  const at = (each: Id): number => all.messages[each]?.createdAt ?? 0;
  const key = all.messages[id]?.parent ?? "";
  return { ...all, children: { ...all.children, [key]: siblings(all, id).toSorted((a, b) => at(a) - at(b)) } };
}
