/** What becomes of answers when the server refuses, breaks or is away. */
import { expect, test } from "vitest";
import { done, gate, lastAnswer, running, TEXT, THOUGHT } from "../testing/answers";
import { opened as openedIn, until, type Page } from "../testing/browser";
import { refusal } from "../testing/server";
import { browser, server } from "../testing/setup";

const opened = (): Promise<Page> => openedIn(browser);

test("429 with Retry-After counts down and tries again by itself; retryNow does not wait", async () => {
  const full = { message: "Full.", type: "rate_limit_error", code: "server_overloaded" };
  server.refusals.push(refusal(429, full, { "retry-after": "30" }));
  const all = await opened();
  all.generation.send("Go");
  await until(() => running(all)?.phase === "backoff");
  const entry = running(all);
  expect(entry?.fault).toMatchObject({ kind: "overloaded", message: "Full.", retryAfter: 30 });
  expect((entry?.retryAt ?? 0) - Date.now()).toBeGreaterThan(20_000);
  all.generation.retryNow(lastAnswer(all).id);
  expect((await done(all)).text).toBe(TEXT);
});

test("503 while loading is tried again by itself", async () => {
  server.refusals.push(refusal(503, { message: "Loading.", code: "not_ready" }, { "retry-after-ms": "20" }));
  const all = await opened();
  all.generation.send("Go");
  await until(() => running(all)?.fault?.kind === "loading");
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
  gate(server, 2);
  const all = await opened();
  all.generation.send("Go");
  await until(() => running(all)?.phase === "thinking");
  all.generation.stop(lastAnswer(all).id);
  await until(() => server.openStreams === 0);
  expect(lastAnswer(all).answer.state).toBe("stopped");
});

test("an answer that the server says has failed is broken, and Continue asks for the rest anew", async () => {
  server.fails = true;
  const all = await opened();
  all.generation.send("Go");
  const broken = await done(all);
  expect(broken.answer).toMatchObject({ state: "broken", thought: THOUGHT, fault: { kind: "failed", message: "The engine failed." } });
  all.generation.continueAnswer(broken.id);
  const message = await done(all);
  expect([message.answer.state, message.text.endsWith(TEXT), message.answer.fault]).toEqual(["done", true, undefined]);
});

test("an answer that broke off because the server was away for long goes on when it is back", async () => {
  const resume = gate(server, 6);
  const all = await opened();
  await until(() => all.server.reach.value === "ok");
  all.generation.send("Go");
  await until(() => running(all)?.phase === "thinking");
  const run = all.streams.runs.get(lastAnswer(all).id);
  server.isDown = true;
  all.server.pollNow();
  await until(() => all.server.reach.value === "unreachable");
  run?.finish("broken", { kind: "unreachable", message: "" }); // as after a minute of trying
  expect(lastAnswer(all).answer.state).toBe("broken");
  server.isDown = false;
  resume();
  all.server.pollNow();
  const message = await done(all);
  await until(() => lastAnswer(all).answer.state === "done");
  expect(lastAnswer(all)).toMatchObject({ id: message.id, text: TEXT, answer: { thought: THOUGHT } });
});
