/** Two tabs change copies of a conversation: nothing is lost, in whatever order they meet. */
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { newConversation, path, withChange, withHead, withMessage, without, type Conversation, type Message } from "./conversation";
import { merge } from "./merge";

let clock = 0;

type Step = { kind: "add" | "change" | "remove" | "title"; which: number };

const steps = fc.array(
  fc.record({ kind: fc.constantFrom("add" as const, "add" as const, "change" as const, "remove" as const, "title" as const), which: fc.nat(20) }),
  { maxLength: 12 },
);

function after(conversation: Conversation, all: Step[], tab: string): { conversation: Conversation; added: string[]; removed: Set<string> } {
  const added: string[] = [];
  const removed = new Set<string>();
  let c = conversation;
  for (const { kind, which } of all) {
    const ids = Object.keys(c.messages);
    const id = ids[which % Math.max(1, ids.length)];
    if (kind === "add") {
      const message: Message = { id: `${tab}${clock}`, parent: id ?? null, role: "user", createdAt: ++clock, text: `${tab}` };
      c = withMessage(c, message);
      added.push(message.id);
    } else if (kind === "title") c = withHead(c, { title: `${tab}${clock}` });
    else if (id !== undefined && kind === "change") c = withChange(c, id, (m) => ({ ...m, text: `${m.text}${tab}` }));
    else if (id !== undefined) {
      const before = Object.keys(c.messages);
      c = without(c, id);
      for (const each of before) if (!c.messages[each]) removed.add(each);
    }
  }
  return { conversation: c, added, removed };
}

const tree = ({ chosen: _chosen, ...rest }: Conversation): unknown => rest;

test("the order of merging does not matter, once more changes nothing, and no message of either is lost", () => {
  fc.assert(
    fc.property(steps, steps, steps, (before, left, right) => {
      const base = after(newConversation("c", 0), before, "b").conversation;
      const a = after(base, left, "l");
      const b = after(base, right, "r");
      const merged = merge(a.conversation, b.conversation);
      const messages = ({ messages: all, children, removed }: Conversation): unknown => ({ all, children, removed });
      expect(messages(merge(b.conversation, a.conversation))).toEqual(messages(merged));
      expect(tree(merge(merged, b.conversation))).toEqual(tree(merged));
      const gone = new Set([...a.removed, ...b.removed]);
      for (const id of [...Object.keys(base.messages), ...a.added, ...b.added]) {
        expect(id in merged.messages).toBe(!gone.has(id));
      }
      checkTree(merged);
    }),
  );
});

/** Every message is a child of its parent, once; there is a way to it from the beginning. */
function checkTree({ messages, children }: Conversation): void {
  const listed = Object.entries(children).flatMap(([parent, ids]) => ids.map((id) => [parent, id] as const));
  expect(listed.map(([, id]) => id).toSorted()).toEqual(Object.keys(messages).toSorted());
  for (const [parent, id] of listed) expect(messages[id]?.parent ?? "").toBe(parent);
}

test("a reply in one tab to what the other removed moves up", () => {
  let c = newConversation("c", 0);
  c = withMessage(c, { id: "1", parent: null, role: "user", createdAt: 1, text: "one" });
  c = withMessage(c, { id: "2", parent: "1", role: "assistant", createdAt: 2, text: "two" });
  const removed = without(c, "2");
  const replied = withMessage(c, { id: "3", parent: "2", role: "user", createdAt: 3, text: "three" });
  expect(path(merge(removed, replied)).map(({ text }) => text)).toEqual(["one", "three"]);
});

test("what is shown in this tab stays shown", () => {
  let c = newConversation("c", 0);
  c = withMessage(c, { id: "1", parent: null, role: "user", createdAt: 1, text: "one" });
  const other = withMessage(c, { id: "2", parent: null, role: "user", createdAt: 2, text: "edited" });
  expect(path(merge(c, other)).map(({ text }) => text)).toEqual(["one"]);
});
