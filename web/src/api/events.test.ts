/** The server's events and bodies as the page's nouns. */
import { expect, test } from "vitest";
import { answerEvent } from "./events";
import { statusOf } from "./status";

const read = (data: object) => answerEvent({ data: JSON.stringify(data) });

test.each([
  [{ type: "response.created", response: { id: "resp_1" } }, { type: "accepted", responseId: "resp_1" }],
  [{ type: "response.progress", queue: { position: 3 } }, { type: "queued", position: 3 }],
  [
    { type: "response.progress", prompt_progress: { total: 9, cache: 4, processed: 6, time_ms: 1 } },
    { type: "reading", total: 9, cached: 4, processed: 6 },
  ],
  [{ type: "response.reasoning_text.delta", delta: "Hm", num_tokens: 2 }, { type: "thought", text: "Hm", tokens: 2 }],
  [{ type: "response.output_text.delta", delta: "", logprobs: [] }, { type: "text", text: "" }],
  [
    { type: "response.output_text.delta", delta: "a", logprobs: [{ token: "a", logprob: -1, top_logprobs: [{ token: "b", logprob: -2 }] }] },
    { type: "text", text: "a", logprobs: [{ token: "a", logprob: -1, rivals: [{ token: "b", logprob: -2 }] }] },
  ],
  [
    { type: "response.completed", response: { status: "completed", thought_closed: "loop" } },
    { type: "ended", finishReason: "stop", thoughtClosed: "repetition" },
  ],
  [
    { type: "response.incomplete", response: { status: "incomplete", incomplete_details: { reason: "max_output_tokens" } } },
    { type: "ended", finishReason: "length" },
  ],
  [
    { type: "response.completed", response: { status: "completed", degraded: { level: 2, max_tokens: 9, thinking_token_budget: 4 } } },
    { type: "ended", finishReason: "stop", degraded: { maxTokens: 9, thoughtBudget: 4 } },
  ],
  [{ type: "response.incomplete", response: { status: "cancelled" } }, { type: "ended", finishReason: "cancelled" }],
])("%j", (data, expected) => {
  expect(read({ ...data, sequence_number: 5 })).toEqual({ ...expected, number: 5 });
});

test("events that repeat what is known say nothing", () => {
  for (const type of ["response.queued", "response.in_progress", "response.output_text.done", "response.output_item.added"]) {
    expect(read({ type, text: "all of it" })).toBeUndefined();
  }
});

test("a response that failed ends; a stream that failed does not", () => {
  const failed = { type: "response.failed", response: { error: { code: "internal_error", message: "No." } } };
  expect(() => read(failed)).toThrowError(expect.objectContaining({ ended: true, message: "No." }));
  expect(() => read({ error: { code: "internal_error", message: "No." } })).toThrowError(expect.objectContaining({ ended: false }));
});

test("data that is no JSON says nothing", () => {
  expect(answerEvent({ data: "[DONE]" })).toBeUndefined();
});

test("the status", () => {
  expect(
    statusOf({
      state: "loading",
      loading: { fraction: 0.4, phase: "packing weights" },
      model: "R1",
      thinks: true,
      sampling: { temperature: 0.6, top_p: 0.95, top_k: 4 },
      context_length: null,
      running: 1,
      waiting: 2,
      kv_cache_usage: 0.5,
      tokens_per_second: 9,
      tokens_per_second_per_answer: null,
      version: "1",
    }),
  ).toEqual({
    state: "loading",
    loading: 0.4,
    model: "R1",
    thinks: true,
    advice: { temperature: 0.6, topP: 0.95 },
    running: 1,
    waiting: 2,
    kvUsed: 0.5,
    tokensPerSecond: 9,
    version: "1",
  });
});
