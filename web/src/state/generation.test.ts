/** What becomes of answers: whole, stopped, broken, continued, replayed, refused. */
import "fake-indexeddb/auto";
import { IDBFactory } from "fake-indexeddb";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Browser, opened as openedIn, until, type Page } from "../testing/browser";
import { FakeServer, refusal } from "../testing/server";
import type { Answer, Message } from "./conversation";

let browser: Browser;
let server: FakeServer;

beforeEach(() => {
  vi.unstubAllGlobals();
  vi.stubGlobal("indexedDB", new IDBFactory());
  browser = new Browser();
  server = new FakeServer();
});

afterEach(() => browser.close());

/** Lets a test stop the server between two events. */
function gate(events: number): () => void {
  let left = events;
  let open: () => void = () => undefined;
  server.pace = async () => {
    if (left-- <= 0) await new Promise<void>((resolve) => (open = resolve));
  };
  return () => {
    left = Infinity;
    open();
  };
}

function opened(): Promise<Page> {
  return openedIn(browser);
}

function answers({ library, conversation }: Page): Message[] {
  return conversation.path(library.current.value).filter((message) => message.role === "assistant");
}

function lastAnswer(all: Page): Message & { answer: Answer } {
  return answers(all).at(-1) as Message & { answer: Answer };
}

async function done(all: Page): Promise<Message & { answer: Answer }> {
  await until(() => all.generation.live.value.size === 0 && lastAnswer(all)?.answer.state !== "running", "the end");
  return lastAnswer(all);
}

const THOUGHT = "Let me see. ";
const TEXT = "The answer is 42.";

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
  await again.library.open(all.library.current.value.id);
  expect(again.library.current.value.messages[message.id]?.text).toBe(TEXT);
  expect(again.library.heads.value).toMatchObject([{ title: "How much?" }]);
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
  const resume = gate(6);
  const all = await opened();
  all.generation.send("Go");
  await until(() => all.generation.live.value.values().next().value?.phase === "thinking");
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
  const resume = gate(6);
  const all = await opened();
  all.generation.send("Go");
  await until(() => all.generation.live.value.values().next().value?.phase === "thinking");
  await browser.leave(all);
  const again = await opened();
  await again.library.open(all.library.current.value.id);
  expect(lastAnswer(again).answer.state).toBe("running");
  resume();
  const message = await done(again);
  expect([message.answer.thought, message.text, message.answer.state]).toEqual([THOUGHT, TEXT, "done"]);
});

test("a page that is loaded again after the server was: what came stays, broken, and Continue goes on with it", async () => {
  gate(9);
  const all = await opened();
  all.generation.send("Go");
  await until(() => all.generation.live.value.values().next().value?.phase === "answering");
  await browser.leave(all);
  server.restart();
  server.pace = async () => undefined;
  const again = await opened();
  await again.library.open(all.library.current.value.id);
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
  gate(6);
  const all = await opened();
  all.generation.send("Go");
  await until(() => all.generation.live.value.values().next().value?.phase === "thinking");
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
  expect(all.conversation.siblings(all.library.current.value, first.id)).toEqual([first.id, second.id]);
});

test("an edit is a sibling, and what came after the old message stays", async () => {
  const all = await opened();
  all.generation.send("Old");
  await done(all);
  const { current } = all.library;
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

test("a vote asks once for n answers, which share its id and end each by itself", async () => {
  const all = await opened();
  all.generation.vote("Go", [], 3);
  await until(() => all.generation.live.value.size === 0);
  const question = all.conversation.path(all.library.current.value)[0] as Message;
  const siblings = (all.library.current.value.children[question.id] ?? []).map(
    (id) => all.library.current.value.messages[id] as Message,
  );
  expect(siblings.map((message) => message.text)).toEqual([TEXT, TEXT, TEXT]);
  expect(siblings.map((message) => message.answer?.vote?.index)).toEqual([0, 1, 2]);
  expect(new Set(siblings.map((message) => message.answer?.vote?.id)).size).toBe(1);
  expect(server.requests(/^v1\/chat\/completions$/)).toHaveLength(1);
  expect(server.requests(/^v1\/chat\/completions$/)[0]?.body["n"]).toBe(3);
});

test("429 with Retry-After counts down and tries again by itself; retryNow does not wait", async () => {
  const full = { message: "Full.", type: "rate_limit_error", code: "server_overloaded" };
  server.refusals.push(refusal(429, full, { "retry-after": "30" }));
  const all = await opened();
  all.generation.send("Go");
  await until(() => all.generation.live.value.values().next().value?.phase === "backoff");
  const entry = all.generation.live.value.values().next().value;
  expect(entry?.fault).toMatchObject({ kind: "overloaded", message: "Full.", retryAfter: 30 });
  expect((entry?.retryAt ?? 0) - Date.now()).toBeGreaterThan(20_000);
  all.generation.retryNow(lastAnswer(all).id);
  expect((await done(all)).text).toBe(TEXT);
});

test("503 while loading is tried again by itself", async () => {
  server.refusals.push(refusal(503, { message: "Loading.", code: "not_ready" }, { "retry-after-ms": "20" }));
  const all = await opened();
  all.generation.send("Go");
  await until(() => all.generation.live.value.values().next().value?.fault?.kind === "loading");
  expect((await done(all)).text).toBe(TEXT);
});

test("401 asks for the key, and with it the same request goes on", async () => {
  server.refusals.push(refusal(401, { message: "No key.", code: "invalid_api_key" }));
  const all = await opened();
  all.generation.send("Go");
  await until(() => all.server.reach.value === "unauthorized");
  all.client.apiKey.value = "secret";
  expect((await done(all)).text).toBe(TEXT);
  const [before, after] = server.requests(/^v1\/responses$/);
  expect(before?.headers.get("authorization")).toBeNull();
  expect(after?.headers.get("authorization")).toBe("Bearer secret");
  expect(after?.body).toEqual(before?.body);
});

test("a conversation that does not fit says so with its numbers", async () => {
  const message =
    "This model's maximum context length is 2048 tokens. However, the prompt has at least 3,001 tokens, and at least one must be left.";
  server.refusals.push(refusal(400, { message, code: "context_length_exceeded", param: "input" }));
  const all = await opened();
  all.generation.send("Go");
  const { answer } = await done(all);
  expect(answer.state).toBe("broken");
  expect(answer.fault).toMatchObject({ kind: "context", room: { limit: 2048, used: 3001, atLeast: true } });
});

test("a connection that breaks is taken up again where it broke", async () => {
  server.cuts = [700];
  const all = await opened();
  all.generation.send("Go");
  const message = await done(all);
  expect([message.answer.thought, message.text, message.answer.state]).toEqual([THOUGHT, TEXT, "done"]);
  expect(server.requests(/^v1\/responses$/)).toHaveLength(1);
  expect(server.requests(/starting_after=\d+/, "GET").length).toBeGreaterThan(0);
});

test("a server that stores nothing is asked over chat completions", async () => {
  server.refusals.push(refusal(400, { message: "Not here.", param: "background", code: "unsupported_parameter" }));
  const all = await opened();
  all.generation.send("Go");
  const message = await done(all);
  expect([message.answer.thought, message.text, message.answer.state]).toEqual([THOUGHT, TEXT, "done"]);
  expect(message.answer.usage?.thoughtTokens).toBe(3);
});

test("an answer over chat completions that breaks keeps its text, and Continue goes on", async () => {
  const stored = refusal(400, { message: "Not here.", param: "background", code: "unsupported_parameter" });
  server.refusals.push(stored);
  server.cuts = [700];
  const all = await opened();
  all.generation.send("Go");
  const broken = await done(all);
  expect(broken.answer).toMatchObject({ state: "broken", fault: { kind: "unreachable" } });
  expect(broken.text).not.toBe("");
  expect(TEXT.startsWith(broken.text)).toBe(true);
});

test("Stop closes the connection of an answer that is not stored, also while the server says nothing", async () => {
  server.refusals.push(refusal(400, { message: "Not here.", param: "background", code: "unsupported_parameter" }));
  gate(2);
  const all = await opened();
  all.generation.send("Go");
  await until(() => all.generation.live.value.values().next().value?.phase === "thinking");
  all.generation.stop(lastAnswer(all).id);
  await until(() => server.openStreams === 0);
  expect(lastAnswer(all).answer.state).toBe("stopped");
});

test("removing a message stops the answers below it", async () => {
  const resume = gate(6);
  const all = await opened();
  all.generation.send("Go");
  await until(() => all.generation.live.value.values().next().value?.phase === "thinking");
  all.generation.removeMessage(all.conversation.path(all.library.current.value)[0]?.id ?? "");
  expect(all.generation.live.value.size).toBe(0);
  await until(() => server.requests(/cancel$/).length === 1);
  resume();
  expect(Object.keys(all.library.current.value.messages)).toEqual([]);
});
