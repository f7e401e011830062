/** Requests contain the server's fields and nothing else. */
import { expect, test } from "vitest";
import { chatBody, promptBody, responseBody } from "./body";
import type { AnswerRequest } from "./types";

const request: AnswerRequest = {
  turns: [
    { role: "user", text: "One" },
    { role: "assistant", text: "Two", thought: "secret" },
    { role: "user", text: "Three" },
  ],
  settings: { system: "Be short.", temperature: 0, topP: 0.9, maxTokens: 5, seed: 7, thoughtBudget: 0, logprobs: 2, schema: { type: "object" } },
};

test("a response", () => {
  expect(responseBody(request)).toEqual({
    instructions: "Be short.",
    input: [
      { type: "message", role: "user", content: "One" },
      { type: "message", role: "assistant", content: "Two" },
      { type: "message", role: "user", content: "Three" },
    ],
    temperature: 0,
    top_p: 0.9,
    max_output_tokens: 5,
    seed: 7,
    thinking_token_budget: 0,
    top_logprobs: 2,
    include: ["message.output_text.logprobs"],
    text: { format: { type: "json_schema", name: "answer", schema: { type: "object" } } },
    stream: true,
    background: true,
    store: true,
    return_progress: true,
  });
});

test("a chat", () => {
  expect(chatBody(request, 3)).toEqual({
    messages: [
      { role: "system", content: "Be short." },
      { role: "user", content: "One" },
      { role: "assistant", content: "Two" },
      { role: "user", content: "Three" },
    ],
    temperature: 0,
    top_p: 0.9,
    max_completion_tokens: 5,
    seed: 7,
    thinking_token_budget: 0,
    logprobs: true,
    top_logprobs: 2,
    response_format: { type: "json_schema", json_schema: { name: "answer", schema: { type: "object" } } },
    n: 3,
    stream: true,
    stream_options: { include_usage: true },
    return_progress: true,
  });
});

test("what is not set is not sent, and what only the page knows is never sent", () => {
  const settings = { thinking: true, language: "zh", presets: [] } as AnswerRequest["settings"];
  const turns = [{ role: "user", text: "One", id: "x", createdAt: 1 } as AnswerRequest["turns"][number]];
  expect(responseBody({ turns, settings })).toEqual({
    input: [{ type: "message", role: "user", content: "One" }],
    stream: true,
    background: true,
    store: true,
    return_progress: true,
  });
});

test("without a thought, its budget is not sent", () => {
  const body = promptBody({ turns: [], settings: { thinking: false, thoughtBudget: 100 } });
  expect(body).toEqual({ input: [], enable_thinking: false });
});

test("only an answer that goes on has its thought", () => {
  const turns: AnswerRequest["turns"] = [
    { role: "assistant", text: "a", thought: "old" },
    { role: "user", text: "b" },
    { role: "assistant", text: "", thought: "so far" },
  ];
  const goesOn = { turns, settings: {}, continues: true };
  expect(responseBody(goesOn)).toMatchObject({
    continue_final_message: true,
    input: [{ content: "a" }, { content: "b" }, { type: "reasoning", content: [{ type: "reasoning_text", text: "so far" }] }],
  });
  expect(chatBody(goesOn)["messages"]).toEqual([
    { role: "assistant", content: "a" },
    { role: "user", content: "b" },
    { role: "assistant", reasoning_content: "so far" },
  ]);
  expect(JSON.stringify(responseBody(goesOn))).not.toContain("old");
});

test("half a surrogate pair is no character", () => {
  expect(responseBody({ turns: [{ role: "user", text: "a\ud83d b🙂" }], settings: {} })["input"]).toEqual([
    { type: "message", role: "user", content: "a\ufffd b🙂" },
  ]);
});
