import { expect, test } from "vitest";

import { newConversation, path, withChosen, withMessage, without, type Conversation } from "../state/conversation";
import { merge } from "../state/merge";
import { restored } from "./restored";

const said = (id: string, parent: string | null, createdAt: number) => ({
  id,
  parent,
  createdAt,
  role: "user" as const,
  text: `text of ${id}`,
});

/** a, with b and e below it; b has c and d below it, of which c is shown. */
function family(): Conversation {
  let all = newConversation("x", 0);
  for (const [index, [id, parent]] of [["a", null], ["b", "a"], ["c", "b"], ["d", "b"], ["e", "a"]].entries()) {
    all = withMessage(all, said(id as string, parent as string | null, index));
  }
  return withChosen(withChosen(all, "c"), "b");
}

const texts = (all: Conversation): string[] => path(all).map((message) => message.text);

function counter(): () => string {
  let last = 0;
  return () => `new${(last += 1)}`;
}

test("what was deleted is shown again, with its branches in their order", () => {
  const before = family();
  const again = restored(without(before, "b"), before, "b", counter());
  expect(texts(again)).toEqual(["text of a", "text of b", "text of c"]);
  expect((again.children["a"] ?? []).map((id) => again.messages[id]?.text)).toEqual(["text of b", "text of e"]);
  expect(again.children["new1"]).toEqual(["new2", "new3"]);
});

test("a tab that heard of the deletion keeps what was restored", () => {
  const before = family();
  const gone = without(before, "b");
  const again = restored(gone, before, "b", counter());
  expect(texts(merge(again, gone))).toEqual(texts(before));
  expect(texts(merge(gone, again))).toContain("text of b");
});

test("nothing is restored where its place is gone too", () => {
  const before = family();
  const now = without(without(before, "c"), "b");
  expect(restored(now, before, "c", counter())).toBe(now);
});

test("a first message comes back at the beginning", () => {
  const before = family();
  const again = restored(without(before, "a"), before, "a", counter());
  expect(texts(again)).toEqual(texts(before));
});
