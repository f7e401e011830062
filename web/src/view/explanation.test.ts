import { expect, test } from "vitest";

import type { Fault } from "../api/types";
import type { Answer } from "../state/conversation";
import { en } from "../words/en";
import { explanation, faultInWords } from "./explanation";

const answer = (more: Partial<Answer> = {}): Answer => ({ state: "done", thought: "", settings: {}, finishReason: "stop", ...more });
const usage = (completionTokens: number) => ({ promptTokens: 1, cachedTokens: 0, completionTokens, thoughtTokens: 0 });

test("a whole answer needs no explanation, nor does one that is being made", () => {
  expect(explanation(en, "42", answer())).toBeNull();
  expect(explanation(en, "", answer({ state: "running" }))).toBeNull();
});

test("an empty answer is explained by the thought that used everything", () => {
  const spent = answer({ thought: "Hmm", finishReason: "length", usage: usage(512) });
  expect(explanation(en, "", spent)).toContain("The thought used all 512 tokens");
  expect(explanation(en, "4", spent)).toBe("The limit of 512 tokens was reached.");
});

test("an empty answer that just ended is said to be one", () => {
  expect(explanation(en, "", answer({ thought: "Hmm" }))).toBe(en.ending.empty);
});

test("who or what ended an answer is said", () => {
  expect(explanation(en, "4", answer({ state: "stopped", finishReason: "cancelled" }))).toBe(en.ending.stopped);
  expect(explanation(en, "4", answer({ state: "broken", finishReason: "error" }))).toBe(en.ending.broken);
});

test("a fault comes before everything else", () => {
  const fault: Fault = { kind: "overloaded", message: "full" };
  expect(explanation(en, "4", answer({ state: "broken", fault }))).toBe(en.fault.overloaded);
});

test("a conversation that does not fit is told by how much, where the server says it", () => {
  const fault: Fault = { kind: "context", message: "", room: { used: 9000, limit: 8192, atLeast: false } };
  expect(faultInWords(en, fault)).toContain("9,000 tokens, but only 8,192 fit");
  expect(faultInWords(en, { kind: "context", message: "" })).toBe(en.fault.context);
});
