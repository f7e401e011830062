/**
 * The same against a real server, where one is running: VITE_ANTIPHON_URL=http://127.0.0.1:PORT/ npx vitest run real
 *
 * Its model may be any that thinks and answers within some seconds.
 */
import "fake-indexeddb/auto";
import { IDBFactory } from "fake-indexeddb";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { Browser, opened, until, type Page } from "../testing/browser";
import type { Answer, Message } from "./conversation";

const url = import.meta.env["VITE_ANTIPHON_URL"] as string | undefined;

type Answered = Message & { answer: Answer };

describe.skipIf(!url)("against a real server", () => {
  let browser: Browser;

  beforeEach(() => {
    vi.unstubAllGlobals();
    vi.stubGlobal("indexedDB", new IDBFactory());
    browser = new Browser(url);
  });
  afterEach(() => browser.close());

  const last = ({ conversations, conversation }: Page): Answered => conversation.path(conversations.current.value).at(-1) as Answered;

  async function done(all: Page): Promise<Answered> {
    await until(() => all.generation.live.value.size === 0 && last(all).answer?.state !== "running", "the end");
    return last(all);
  }

  const phase = (all: Page): string | undefined => all.generation.live.value.values().next().value?.phase;

  test("an answer comes with its thought, usage and timings, and the same again by its seed", async () => {
    const all = await opened(browser);
    all.generation.send("Hello, 数学 🙂", [{ name: "a.txt", text: "```\nfile" }]);
    const { text, answer, id } = await done(all);
    expect(text).not.toBe("");
    expect(answer).toMatchObject({ state: "done", finishReason: "stop" });
    expect(answer.thought).not.toBe("");
    expect(answer.usage?.thoughtTokens).toBeGreaterThan(0);
    expect(answer.timings?.predictedPerSecond).toBeGreaterThan(0);
    await expect(all.generation.replay(id)).resolves.toBe("same");
  });

  test("stopped in its thought, continued to its end", async () => {
    const all = await opened(browser);
    all.generation.send("Hello");
    await until(() => (all.generation.live.value.values().next().value?.tokens ?? 0) > 3);
    all.generation.stop(last(all).id);
    const stopped = last(all);
    expect(stopped.answer).toMatchObject({ state: "stopped" });
    expect(stopped.answer.thought).not.toBe("");
    all.generation.continueAnswer(stopped.id);
    const { answer, text } = await done(all);
    expect([answer.state, answer.fault]).toEqual(["done", undefined]);
    expect(answer.thought.startsWith(stopped.answer.thought)).toBe(true);
    expect(text).not.toBe("");
  });

  test("Answer now closes the thought", async () => {
    const all = await opened(browser);
    all.generation.send("Hello");
    await until(() => phase(all) === "thinking");
    all.generation.answerNow(last(all).id);
    const { answer, text } = await done(all);
    expect([answer.state, answer.thoughtClosed, answer.fault]).toEqual(["done", "request", undefined]);
    expect(text).not.toBe("");
  });

  test("a page that is loaded again at any moment has the whole answer in the end", async () => {
    const whole = await opened(browser);
    whole.settings.update({ seed: 7 });
    whole.generation.send("Hello");
    const expected = await done(whole);
    await browser.leave(whole);
    for (const tokens of [0, 1, 5, 17]) {
      const first = await opened(browser);
      first.conversations.startNew();
      first.generation.send("Hello");
      await until(() => last(first)?.answer?.responseId !== undefined || last(first)?.answer?.state === "done" || hasId(first));
      await until(() => (first.generation.live.value.values().next().value?.tokens ?? Infinity) >= tokens);
      await browser.leave(first);
      const again = await opened(browser);
      await again.conversations.open(first.conversations.current.value.id);
      const { text, answer } = await done(again);
      expect([answer.state, answer.thought, text]).toEqual(["done", expected.answer.thought, expected.text]);
      await browser.leave(again);
    }
  });

  const hasId = (all: Page): boolean => [...all.streams.runs.values()].some((run) => run.responseId !== undefined);

  test("a connection that breaks is taken up where it broke", async () => {
    const all = await opened(browser);
    all.settings.update({ seed: 7 });
    all.generation.send("Hello");
    for (const tokens of [2, 6, 14]) {
      await until(() => (all.generation.live.value.values().next().value?.tokens ?? Infinity) >= tokens);
      for (const run of all.streams.runs.values()) run.connection?.abort();
    }
    const cut = await done(all);
    all.conversations.startNew();
    all.generation.send("Hello");
    const whole = await done(all);
    expect([cut.answer.state, cut.answer.thought, cut.text]).toEqual(["done", whole.answer.thought, whole.text]);
  });

  test("a vote, a count of tokens and the status", async () => {
    const all = await opened(browser);
    all.generation.vote("Hello", [], 3);
    await until(() => all.generation.live.value.size === 0);
    const texts = Object.values(all.conversations.current.value.messages).filter(({ role }) => role === "assistant");
    expect(texts.map(({ answer }) => [answer?.state, answer?.fault])).toEqual(Array(3).fill(["done", undefined]));
    const { countTokens } = await import("../api/tokens");
    const { fetchStatus } = await import("../api/status");
    const few = await countTokens({ turns: [{ role: "user", text: "One" }], settings: {} });
    const many = await countTokens({ turns: [{ role: "user", text: "One two three four" }], settings: { system: "Hm." } });
    expect(few).toBeGreaterThan(0);
    expect(many).toBeGreaterThan(few);
    await fetchStatus().then(
      (status) => expect(status.contextLength).toBeGreaterThan(0),
      (error: unknown) => expect(error).toMatchObject({ status: 404 }), // the operator closed it
    );
  });

  test("no field is unknown to the server", async () => {
    const seen: string[] = [];
    const real = globalThis.fetch;
    vi.stubGlobal("fetch", async (...asked: Parameters<typeof fetch>) => {
      const response = await real(...asked);
      const ignored = response.headers.get("x-ignored-fields");
      if (ignored) seen.push(ignored);
      return response;
    });
    const all = await opened(browser);
    all.settings.update({ system: "Be short.", temperature: 0.5, topP: 0.9, maxTokens: 200, seed: 3, thoughtBudget: 20, logprobs: 2 });
    all.generation.send("Hello");
    const { answer } = await done(all);
    expect([answer.state, answer.fault]).toEqual(["done", undefined]);
    expect(answer.logprobs?.[0]?.rivals).toHaveLength(2);
    all.generation.vote("Again", [], 2);
    await until(() => all.generation.live.value.size === 0);
    expect(seen).toEqual([]);
  });
});
