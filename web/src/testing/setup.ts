/** A new browser, with a database of its own, and a new server before each test of the file that imports them. */
import "fake-indexeddb/auto";
import { IDBFactory } from "fake-indexeddb";
import { afterEach, beforeEach, vi } from "vitest";
import { Browser } from "./browser";
import { FakeServer } from "./server";

export let browser: Browser;
export let server: FakeServer;

beforeEach(() => {
  vi.unstubAllGlobals();
  vi.stubGlobal("indexedDB", new IDBFactory());
  browser = new Browser();
  server = new FakeServer();
});
afterEach(() => browser.close());
