/** Storage that is full, missing or taken away: nothing is lost without a word. */
import "fake-indexeddb/auto";
import { IDBFactory } from "fake-indexeddb";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Browser, opened, until, type Page } from "../testing/browser";
import { FakeServer } from "../testing/server";

let browser: Browser;
let server: FakeServer;

beforeEach(() => {
  vi.unstubAllGlobals();
  vi.stubGlobal("indexedDB", new IDBFactory());
  browser = new Browser();
  server = new FakeServer();
});
afterEach(() => {
  browser.close();
  vi.restoreAllMocks();
});

async function asked(page: Page, text: string): Promise<string> {
  page.generation.send(text);
  await until(() => page.generation.live.value.size === 0);
  await page.documents.flush();
  return page.conversations.current.value.id;
}

test("a full disk is said, and what could not be saved is saved once there is room", async () => {
  const page = await opened(browser);
  const put = vi.spyOn(IDBObjectStore.prototype, "put").mockImplementation(() => {
    throw new DOMException("No room.", "QuotaExceededError");
  });
  const id = await asked(page, "One");
  expect(server.responses.size).toBe(1); // it is not forgotten before it is stored
  expect(page.database.storageFault.value).toEqual({ kind: "full", message: "No room." });
  expect(page.conversation.path(page.conversations.current.value)).toHaveLength(2);
  put.mockRestore();
  await page.documents.flush();
  expect(page.database.storageFault.value).toBeNull();
  const again = await opened(browser);
  await again.conversations.open(id);
  expect(again.conversation.path(again.conversations.current.value).map(({ text }) => text)).toEqual(["One", "The answer is 42."]);
});

test.each([
  ["missing", undefined],
  ["forbidden", { open: () => { throw new DOMException("Denied.", "SecurityError"); } }],
])("where IndexedDB is %s, conversations stay in memory, and the page says so", async (_, factory) => {
  vi.stubGlobal("indexedDB", factory);
  const page = await opened(browser);
  const id = await asked(page, "One");
  expect(page.database.storageFault.value?.kind).toBe("memory");
  page.conversations.startNew();
  await page.conversations.open(id);
  expect(page.conversation.path(page.conversations.current.value)).toHaveLength(2);
  expect(await page.conversations.search("answer")).toHaveLength(1);
});

test("a database that the browser closed is opened again", async () => {
  const page = await opened(browser);
  const id = await asked(page, "One");
  vi.spyOn(IDBDatabase.prototype, "transaction").mockImplementationOnce(() => {
    throw new DOMException("Closed.", "InvalidStateError");
  });
  page.conversations.rename(id, "Renamed");
  await page.documents.flush();
  expect(page.database.storageFault.value).toBeNull();
  const again = await opened(browser);
  expect(again.conversations.heads.value).toMatchObject([{ title: "Renamed" }]);
});

test("search finds titles and texts, in any case", async () => {
  const page = await opened(browser);
  await asked(page, "Äpfel");
  page.conversations.startNew();
  const id = await asked(page, "Birnen");
  page.conversations.rename(id, "Obst");
  expect((await page.conversations.search("äPFEL")).map(({ title }) => title)).toEqual(["Äpfel"]);
  expect((await page.conversations.search("birn")).map(({ title }) => title)).toEqual(["Obst"]);
  expect((await page.conversations.search("OBS")).map(({ title }) => title)).toEqual(["Obst"]);
  expect(await page.conversations.search("42")).toHaveLength(2);
  expect(await page.conversations.search("nothing")).toEqual([]);
});

test("pinned conversations come first, then the latest; removed ones come back", async () => {
  const page = await opened(browser);
  const ids: string[] = [];
  for (const text of ["One", "Two", "Three"]) {
    ids.push(await asked(page, text));
    page.conversations.startNew();
  }
  page.conversations.pin(ids[0] ?? "", true);
  await until(() => page.conversations.heads.value[0]?.pinned === true);
  expect(page.conversations.heads.value.map(({ title }) => title)).toEqual(["One", "Three", "Two"]);
  page.conversations.remove(ids[2] ?? "");
  await until(() => page.conversations.heads.value.length === 2);
  page.conversations.undoRemove();
  await until(() => page.conversations.heads.value.length === 3);
  await until(() => page.conversations.current.value.id === ids[2], "opening it again");
  const again = await opened(browser);
  expect(again.conversations.heads.value.map(({ title }) => title)).toEqual(["One", "Three", "Two"]);
});

test("what is removed stays removed where the page is closed at once, and can be taken back before that", async () => {
  const page = await opened(browser);
  const ids: string[] = [];
  for (const text of ["One", "Two"]) {
    ids.push(await asked(page, text));
    page.conversations.startNew();
  }
  const closed = vi.spyOn(IDBDatabase.prototype, "transaction").mockImplementation(() => {
    throw new DOMException("Closed.", "AbortError");
  });
  for (const id of ids) page.conversations.remove(id);
  page.conversations.undoRemove(); // of the second
  await until(() => page.database.storageFault.value !== null);
  browser.crash(page);
  closed.mockRestore();
  for (let load = 0; load < 2; load++) {
    const again = await opened(browser);
    expect(again.conversations.heads.value.map(({ title }) => title)).toEqual(["Two"]);
    const store = await again.database.database();
    expect(await store.load(ids[0] ?? "")).toBeUndefined();
  }
});

test("a draft survives", async () => {
  const page = await opened(browser);
  const { keepDraft, saveDraft } = await import("../state/drafts");
  keepDraft("c", { text: "half a thou", attachments: [{ name: "a", text: "b" }] });
  saveDraft();
  await opened(browser);
  const again = await import("../state/drafts");
  await vi.waitFor(async () => expect(await again.draftOf("c")).toMatchObject({ text: "half a thou", attachments: [{ name: "a", text: "b" }] }));
  expect(page.database.storageFault.value).toBeNull();
});
