/** Several tabs over the same storage: none overwrites another, and each answer is run by one of them. */
import "fake-indexeddb/auto";
import { IDBFactory } from "fake-indexeddb";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { Message } from "../state/conversation";
import { Browser, opened, until, type Page } from "../testing/browser";
import { FakeServer } from "../testing/server";

let browser: Browser;
let server: FakeServer;
let open: (() => void)[] = [];

beforeEach(() => {
  vi.unstubAllGlobals();
  vi.stubGlobal("indexedDB", new IDBFactory());
  browser = new Browser();
  server = new FakeServer();
  open = [];
});
afterEach(() => browser.close());

/** Answers stop after so many events, until `goOn`. */
function hold(events: number): void {
  let left = events;
  server.pace = async () => {
    if (left-- <= 0) await new Promise<void>((resolve) => open.push(resolve));
  };
}

function goOn(): void {
  server.pace = async () => undefined;
  for (const resolve of open) resolve();
}

const shown = ({ conversations, conversation }: Page): Message[] => conversation.path(conversations.current.value);
const texts = (page: Page): string[] => shown(page).map(({ text }) => text);
const isIdle = (page: Page): boolean => page.generation.live.value.size === 0;
const isLive = (page: Page): boolean => page.generation.live.value.size > 0;

async function asked(page: Page, text: string): Promise<string> {
  page.generation.send(text);
  await until(() => isIdle(page));
  await page.documents.flush();
  return page.conversations.current.value.id;
}

test("a conversation of one tab is listed in the other, and grows there", async () => {
  const [a, b] = [await opened(browser), await opened(browser)];
  const id = await asked(a, "One");
  await until(() => b.conversations.heads.value.length === 1);
  await b.conversations.open(id);
  expect(texts(b)).toEqual(["One", "The answer is 42."]);
  await asked(a, "Two");
  await until(() => texts(b).length === 4);
  expect(texts(b)).toEqual(["One", "The answer is 42.", "Two", "The answer is 42."]);
});

test("two tabs that write in one conversation at once keep both", async () => {
  const [a, b] = [await opened(browser), await opened(browser)];
  const id = await asked(a, "One");
  await b.conversations.open(id);
  a.generation.send("From a");
  b.generation.send("From b");
  a.conversations.rename(id, "Mine");
  b.conversations.pin(id, true);
  await until(() => isIdle(a) && isIdle(b));
  await a.documents.flush();
  await b.documents.flush();
  const c = await opened(browser);
  await c.conversations.open(id);
  const all = Object.values(c.conversations.current.value.messages).map(({ text }) => text);
  expect(all.toSorted()).toEqual(["From a", "From b", "One", ...Array(3).fill("The answer is 42.")].toSorted());
  await until(() => Object.keys(a.conversations.current.value.messages).length === 6, "the other's messages");
  await until(() => Object.keys(b.conversations.current.value.messages).length === 6, "the other's messages");
});

test("a running answer is run by its tab alone: the other shows it, and does not touch it", async () => {
  hold(6);
  const a = await opened(browser);
  a.generation.send("One");
  await until(() => isLive(a) && a.generation.live.value.values().next().value?.phase === "thinking");
  await a.documents.flush();
  const b = await opened(browser);
  await b.conversations.open(a.conversations.current.value.id);
  expect(isIdle(b)).toBe(true);
  expect(shown(b).at(-1)?.answer?.state).toBe("running");
  b.conversations.rename(a.conversations.current.value.id, "Renamed");
  await b.documents.flush();
  goOn();
  await until(() => shown(b).at(-1)?.answer?.state === "done", "the other tab's answer");
  expect(texts(b)).toEqual(texts(a));
  expect(a.conversations.current.value.title).toBe("Renamed");
  expect(server.requests(/stream/, "GET")).toEqual([]);
});

test("the answer of a tab that is gone is taken over, by one of the others", async () => {
  hold(6);
  const a = await opened(browser);
  a.generation.send("One");
  await until(() => a.generation.live.value.values().next().value?.phase === "thinking");
  await a.documents.flush();
  browser.crash(a);
  const others = await Promise.all([opened(browser)]);
  const [b, c] = [others[0] as Page, await opened(browser)];
  await b.conversations.open(a.conversations.current.value.id);
  await until(() => isLive(b) || isLive(c), "taking over");
  expect([isLive(b), isLive(c)].filter(Boolean)).toHaveLength(1);
  goOn();
  await until(() => shown(b).at(-1)?.answer?.state === "done");
  expect(shown(b).at(-1)).toMatchObject({ text: "The answer is 42.", answer: { thought: "Let me see. " } });
});

test("a tab that lost its answer lets go of it, and what the other stored stays", async () => {
  hold(6);
  const a = await opened(browser);
  a.generation.send("One");
  await until(() => a.generation.live.value.values().next().value?.phase === "thinking");
  await a.documents.flush();
  a.channel?.close(); // as a frozen tab: it answers nobody
  const b = await opened(browser);
  await b.conversations.open(a.conversations.current.value.id);
  await until(() => isLive(b), "taking over");
  await a.documents.flush();
  goOn();
  await until(() => isIdle(a) && isIdle(b));
  await a.documents.flush();
  await b.documents.flush();
  const c = await opened(browser);
  await c.conversations.open(a.conversations.current.value.id);
  expect(shown(c).at(-1)).toMatchObject({ text: "The answer is 42.", answer: { state: "done", thought: "Let me see. " } });
});

test("Stop works from any tab", async () => {
  hold(6);
  const a = await opened(browser);
  a.generation.send("One");
  await until(() => a.generation.live.value.values().next().value?.phase === "thinking");
  await a.documents.flush();
  const b = await opened(browser);
  await b.conversations.open(a.conversations.current.value.id);
  b.generation.stop(shown(b).at(-1)?.id ?? "");
  await until(() => shown(b).at(-1)?.answer?.state === "stopped");
  expect(server.requests(/cancel$/)).toHaveLength(1);
});

test("two tabs that go on with one answer at once: one does, and what the other asked for is cancelled", async () => {
  hold(6);
  const [a, b] = [await opened(browser), await opened(browser)];
  a.generation.send("One");
  await until(() => a.generation.live.value.values().next().value?.phase === "thinking");
  const { id } = shown(a).at(-1) as Message;
  a.generation.stop(id);
  await a.documents.flush();
  await b.conversations.open(a.conversations.current.value.id);
  goOn();
  hold(3);
  const before = server.requests(/cancel$/).length;
  a.generation.continueAnswer(id);
  b.generation.continueAnswer(id);
  await until(() => server.requests(/^v1\/responses$/).length === 3);
  await until(() => isLive(a) !== isLive(b), "one of them letting go");
  await until(() => server.requests(/cancel$/).length === before + 1, "cancelling");
  goOn();
  await until(() => isIdle(a) && isIdle(b));
  await until(() => shown(a).at(-1)?.answer?.state === "done" && shown(b).at(-1)?.answer?.state === "done");
  expect(texts(a)).toEqual(["One", "The answer is 42."]);
  expect(texts(b)).toEqual(["One", "The answer is 42."]);
});

test("what one tab removes is gone in the other, and comes back", async () => {
  const [a, b] = [await opened(browser), await opened(browser)];
  const id = await asked(a, "One");
  await until(() => b.conversations.heads.value.length === 1);
  await b.conversations.open(id);
  a.conversations.remove(id);
  await until(() => b.conversations.heads.value.length === 0 && texts(b).length === 0);
  a.conversations.undoRemove();
  await until(() => b.conversations.heads.value.length === 1 && texts(a).length === 2);
  await b.conversations.open(id);
  expect(texts(b)).toEqual(["One", "The answer is 42."]);
});

test("seven tabs that answer at once give up streams above four, and all get their answers", async () => {
  server.answer = { thought: Array(100).fill("t "), text: Array(100).fill("x ") };
  server.pace = () => new Promise((resolve) => setTimeout(resolve, 25));
  const tabs: Page[] = [];
  for (let n = 0; n < 7; n++) tabs.push(await opened(browser));
  for (const [n, tab] of tabs.entries()) tab.generation.send(`Question ${n}`);
  await until(() => tabs.every((tab) => tab.generation.live.value.values().next().value?.phase === "thinking"), "thinking");
  await until(() => server.openStreams <= 4, "giving up streams");
  await until(() => tabs.every(isIdle), "the ends");
  for (const tab of tabs) {
    expect(shown(tab).at(-1)).toMatchObject({ text: "x ".repeat(100), answer: { thought: "t ".repeat(100), state: "done" } });
  }
}, 30_000);

test("a hidden tab looks in from time to time, and has the whole answer", async () => {
  server.answer.text = Array(300).fill("x ");
  server.pace = () => new Promise((resolve) => setTimeout(resolve, 40));
  const a = await opened(browser);
  a.generation.send("One");
  await until(() => isLive(a) && server.openStreams === 1);
  browser.show(false);
  await until(() => server.openStreams === 0, "giving up the stream");
  server.pace = async () => undefined;
  await until(() => isIdle(a), "the end");
  expect(texts(a).at(-1)).toBe("x ".repeat(300));
}, 30_000);
