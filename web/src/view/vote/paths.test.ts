import { expect, it } from "vitest";

import { newConversation, withMessage, type Message } from "../../state/conversation";
import { pathsOf } from "./paths";

const message = (id: string, vote?: { id: string; index: number; of: number }): Message => ({
  id,
  parent: "q",
  role: "assistant",
  createdAt: 1,
  text: "",
  answer: { state: "done", thought: "", settings: {}, ...(vote ? { vote } : {}) },
});

it("a vote's paths are the siblings with its id, in their order", () => {
  let conversation = withMessage(newConversation("c", 0), {
    id: "q",
    parent: null,
    role: "user",
    createdAt: 0,
    text: "?",
  });
  const votes = [
    message("b", { id: "v", index: 1, of: 2 }),
    message("a", { id: "v", index: 0, of: 2 }),
    message("x"),
    message("y", { id: "w", index: 0, of: 1 }),
  ];
  for (const each of votes) conversation = withMessage(conversation, each);
  expect(pathsOf(conversation, "b").map((each) => each.id)).toEqual(["a", "b"]);
  expect(pathsOf(conversation, "x")).toEqual([]);
  expect(pathsOf(conversation, "nobody")).toEqual([]);
});
