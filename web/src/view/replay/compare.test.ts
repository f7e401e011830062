import { describe, expect, it } from "vitest";

import type { Answer, Message } from "../../state/conversation";
import { compare, obstacle } from "./compare";

function message(thought: string, text: string, more: Partial<Answer> = {}): Message {
  const answer: Answer = { state: "done", thought, settings: { seed: 1 }, ...more };
  return { id: "a", parent: "q", role: "assistant", createdAt: 0, text, answer };
}

describe("a replay", () => {
  it("is the same if thought and text are, and says how many characters were compared", () => {
    expect(compare(message("hm", "4😀"), message("hm", "4😀"))).toEqual({ kind: "same", characters: 4 });
  });

  it("differs where the thought does, before the text", () => {
    expect(compare(message("one", "x"), message("two", "y"))).toMatchObject({
      where: "thought",
      difference: { at: 0 },
    });
    expect(compare(message("one", "42"), message("one", "41"))).toMatchObject({ where: "text", difference: { at: 1 } });
  });

  it("of a whole answer differs if it goes on", () => {
    expect(compare(message("", "42"), message("", "42.")).kind).toBe("different");
    expect(compare(message("h", ""), message("h", "42")).kind).toBe("different");
  });

  it.each(["stopped", "broken"] as const)("of an answer that was %s is compared as far as that goes", (state) => {
    expect(compare(message("hm", "4", { state }), message("hm", "42"))).toEqual({ kind: "same", characters: 3 });
    expect(compare(message("h", "", { state }), message("hm", "42"))).toEqual({ kind: "same", characters: 1 });
    expect(compare(message("hm", "5", { state }), message("hm", "42"))).toMatchObject({ where: "text" });
    expect(compare(message("hm", "4", { state }), message("hmm", "42"))).toMatchObject({ where: "thought" });
    expect(compare(message("hm", "42", { state }), message("hm", "4"))).toMatchObject({ where: "text" });
  });
});

it("an answer that was continued, or is not the first of a vote, cannot be replayed", () => {
  expect(obstacle(message("", "").answer)).toBeNull();
  expect(obstacle(message("", "", { continued: true }).answer)).toBe("continued");
  expect(obstacle(message("", "", { vote: { id: "v", index: 1, of: 3 } }).answer)).toBe("vote");
  expect(obstacle(message("", "", { vote: { id: "v", index: 0, of: 3 } }).answer)).toBeNull();
});
