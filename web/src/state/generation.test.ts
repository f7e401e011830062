/** What a reader does with answers: stops them, goes on, asks again, votes, replays. */
import { expect, test } from "vitest";
import { done, gate, lastAnswer, running, TEXT, THOUGHT } from "../testing/answers";
import { opened as openedIn, until, type Page } from "../testing/browser";
import type { Message } from "./conversation";
import { browser, server } from "../testing/setup";

const opened = (): Promise<Page> => openedIn(browser);

test("an answer has its thought, its text, its timings and a seed, and the server forgets it once it is stored", async () => {
  const all = await opened();
  all.generation.send("How much?", [{ name: "a.py", text: "x = 1" }]);
  const message = await done(all);
  expect(message.text).toBe(TEXT);
  expect(message.answer).toMatchObject({ state: "done", thought: THOUGHT, finishReason: "stop", thoughtTokens: 3 });
  expect(message.answer.timings?.predictedMs).toBe(8000);
  expect(message.answer.usage).toEqual({ promptTokens: 9, cachedTokens: 4, completionTokens: 8, thoughtTokens: 3 });
  const [asked] = server.requests(/^v1\/responses$/);
  expect(asked?.body["seed"]).toBe(message.answer.settings.seed);
  expect(asked?.body["input"]).toEqual([
    { type: "message", role: "user", content: "How much?\n\na.py:\n```py\nx = 1\n```" },
  ]);
  await until(() => server.responses.size === 0, "forgetting");
  const again = await opened();
  await again.conversations.open(all.conversations.current.value.id);
  expect(again.conversations.current.value.messages[message.id]?.text).toBe(TEXT);
  expect(again.conversations.heads.value).toMatchObject([{ title: "How much?" }]);
});

test("an earlier thought is not sent back", async () => {
  const all = await opened();
  all.generation.send("One");
  await done(all);
  all.generation.send("Two");
  await done(all);
  expect(JSON.stringify(server.requests(/^v1\/responses$/)[1]?.body)).not.toContain(THOUGHT.trim());
});

test("Stop keeps the text so far and cancels at the server", async () => {
  const resume = gate(server, 6);
  const all = await opened();
  all.generation.send("Go");
  await until(() => running(all)?.phase === "thinking");
  all.generation.stop(lastAnswer(all).id);
  expect(lastAnswer(all).answer).toMatchObject({ state: "stopped", finishReason: "cancelled" });
  expect(lastAnswer(all).answer.thought).not.toBe("");
  await until(() => server.requests(/cancel$/).length === 1);
  resume();
  await until(() => server.openStreams === 0);
  expect(lastAnswer(all).text).toBe("");
});

test("Stop before the server has said anything cancels what it begins", async () => {
  const all = await opened();
  all.generation.send("Go");
  all.generation.stop(lastAnswer(all).id);
  expect(lastAnswer(all).answer.state).toBe("stopped");
  expect(all.generation.live.value.size).toBe(0);
  await until(() => server.requests(/cancel$/).length === 1);
  await until(() => server.openStreams === 0);
  expect(lastAnswer(all)).toMatchObject({ text: "", answer: { thought: "", state: "stopped" } });
});

test("a page that is loaded again attaches to its answer, and nothing is doubled or lost", async () => {
  const resume = gate(server, 6);
  const all = await opened();
  all.generation.send("Go");
  await until(() => running(all)?.phase === "thinking");
  await browser.leave(all);
  const again = await opened();
  await again.conversations.open(all.conversations.current.value.id);
  expect(lastAnswer(again).answer.state).toBe("running");
  resume();
  const message = await done(again);
  expect([message.answer.thought, message.text, message.answer.state]).toEqual([THOUGHT, TEXT, "done"]);
});

test("a page that is loaded again after the server was: what came stays, broken, and Continue goes on with it", async () => {
  gate(server, 9);
  const all = await opened();
  all.generation.send("Go");
  await until(() => running(all)?.phase === "answering");
  await browser.leave(all);
  server.restart();
  server.pace = async () => undefined;
  const again = await opened();
  await again.conversations.open(all.conversations.current.value.id);
  const broken = await done(again);
  expect(broken.answer).toMatchObject({ state: "broken", thought: THOUGHT });
  expect(broken.text).not.toBe("");
  server.answer.text = ["and so on."];
  again.generation.continueAnswer(broken.id);
  const message = await done(again);
  expect(message.text).toBe(`${broken.text}and so on.`);
  expect(message.answer).toMatchObject({ state: "done", thought: THOUGHT, continued: true });
  expect(message.answer.fault).toBeUndefined();
  const body = server.requests(/^v1\/responses$/).at(-1)?.body ?? {};
  expect(body["continue_final_message"]).toBe(true);
  expect((body["input"] as unknown[]).slice(-2)).toEqual([
    { type: "reasoning", content: [{ type: "reasoning_text", text: THOUGHT }] },
    { type: "message", role: "assistant", content: broken.text },
  ]);
});

test("Answer now cancels, closes the thought, and the answer comes", async () => {
  gate(server, 6);
  const all = await opened();
  all.generation.send("Go");
  await until(() => running(all)?.phase === "thinking");
  server.pace = async () => undefined;
  all.generation.answerNow(lastAnswer(all).id);
  const message = await done(all);
  expect(message.text).toBe(TEXT);
  expect(THOUGHT.startsWith(message.answer.thought)).toBe(true);
  expect(message.answer).toMatchObject({ state: "done", thoughtClosed: "request" });
  expect(server.requests(/cancel$/)).toHaveLength(1);
  const body = server.requests(/^v1\/responses$/)[1]?.body;
  expect(body).toMatchObject({ continue_final_message: true, thinking_token_budget: 0 });
});

test("another answer is a sibling with another seed, and the first one stays", async () => {
  const all = await opened();
  all.generation.send("Go");
  const first = await done(all);
  all.generation.regenerate(first.id);
  const second = await done(all);
  expect(second.id).not.toBe(first.id);
  expect(second.answer.settings.seed).not.toBe(first.answer.settings.seed);
  expect(all.conversation.siblings(all.conversations.current.value, first.id)).toEqual([first.id, second.id]);
});

test("an edit is a sibling, and what came after the old message stays", async () => {
  const all = await opened();
  all.generation.send("Old");
  await done(all);
  const { current } = all.conversations;
  const old = all.conversation.path(current.value)[0] as Message;
  all.generation.editAndSend(old.id, "New", []);
  await done(all);
  expect(all.conversation.path(current.value)[0]?.text).toBe("New");
  expect(Object.keys(current.value.messages)).toHaveLength(4);
});

test("a replay says whether the answer is the same, and is shown at its end", async () => {
  const all = await opened();
  all.generation.send("Go");
  const first = await done(all);
  await expect(all.generation.replay(first.id)).resolves.toBe("same");
  expect(lastAnswer(all).id).not.toBe(first.id);
  const [one, two] = server.requests(/^v1\/responses$/);
  expect(two?.body).toEqual(one?.body);
  server.answer.text = ["Something else."];
  await expect(all.generation.replay(first.id)).resolves.toBe("different");
});

test("the limits that a busy server lowered are kept, and asked for by a replay", async () => {
  const all = await opened();
  server.degraded = { level: 2, max_tokens: 90, thinking_token_budget: 40, temperature: 0.3 };
  all.generation.send("Go");
  const first = await done(all);
  const limits = { maxTokens: 90, thoughtBudget: 40, temperature: 0.3 };
  expect(first.answer?.degraded).toEqual(limits);
  expect(first.answer?.settings).not.toMatchObject(limits);
  server.degraded = undefined;
  await expect(all.generation.replay(first.id)).resolves.toBe("same");
  const [one, two] = server.requests(/^v1\/responses$/);
  expect(one?.body).not.toHaveProperty("max_output_tokens");
  expect(two?.body).toMatchObject({ max_output_tokens: 90, thinking_token_budget: 40, temperature: 0.3 });
});

test("a vote asks once for n answers, which share its id and end each by itself", async () => {
  const all = await opened();
  all.generation.vote("Go", [], 3);
  await until(() => all.generation.live.value.size === 0);
  const question = all.conversation.path(all.conversations.current.value)[0] as Message;
  const siblings = (all.conversations.current.value.children[question.id] ?? []).map(
    (id) => all.conversations.current.value.messages[id] as Message,
  );
  expect(siblings.map((message) => message.text)).toEqual([TEXT, TEXT, TEXT]);
  expect(siblings.map((message) => message.answer?.vote?.index)).toEqual([0, 1, 2]);
  expect(new Set(siblings.map((message) => message.answer?.vote?.id)).size).toBe(1);
  expect(server.requests(/^v1\/chat\/completions$/)).toHaveLength(1);
  expect(server.requests(/^v1\/chat\/completions$/)[0]?.body["n"]).toBe(3);
});

test("removing a message stops the answers below it", async () => {
  const resume = gate(server, 6);
  const all = await opened();
  all.generation.send("Go");
  await until(() => running(all)?.phase === "thinking");
  all.generation.removeMessage(all.conversation.path(all.conversations.current.value)[0]?.id ?? "");
  expect(all.generation.live.value.size).toBe(0);
  await until(() => server.requests(/cancel$/).length === 1);
  resume();
  expect(Object.keys(all.conversations.current.value.messages)).toEqual([]);
});
