/**
 * What the state needs of a browser, for tests in Node: a document that can be hidden, an address, storage.
 *
 * A page is loaded by importing the modules anew (`page`): so tests load it again, and open two at once over the same
 * IndexedDB and BroadcastChannel.
 */
import { setMaxListeners } from "node:events";
import { vi } from "vitest";

export const ORIGIN = "http://antiphon.test/chat/";

class FakeStorage {
  readonly #values = new Map<string, string>();
  getItem = (name: string): string | null => this.#values.get(name) ?? null;
  setItem = (name: string, value: string): void => void this.#values.set(name, value);
  removeItem = (name: string): void => void this.#values.delete(name);
}

export class Browser {
  readonly document;
  readonly window = new EventTarget();
  readonly location = { hash: "" };
  readonly channels: BroadcastChannel[] = [];

  constructor(baseURI = ORIGIN) {
    setMaxListeners(0, this.window); // of all the pages that a test opens
    this.document = Object.assign(new EventTarget(), { baseURI, visibilityState: "visible" });
    setMaxListeners(0, this.document);
    const { channels } = this;
    const Channel = globalThis.BroadcastChannel;
    const Counted = class extends Channel {
      constructor(name: string) {
        super(name);
        channels.push(this);
      }

      override close(): void {
        super.close();
        this.postMessage = () => undefined; // no code of a closed page runs
      }
    };
    vi.stubGlobal("BroadcastChannel", Counted);
    vi.stubGlobal("document", this.document);
    vi.stubGlobal("window", this.window);
    vi.stubGlobal("location", this.location);
    vi.stubGlobal("localStorage", new FakeStorage());
    vi.stubGlobal("sessionStorage", new FakeStorage());
  }

  show(isVisible: boolean): void {
    this.document.visibilityState = isVisible ? "visible" : "hidden";
    this.document.dispatchEvent(new Event("visibilitychange"));
  }

  /** The reader leaves the page: it saves what it has; after that none of its code runs any more. */
  async leave(page: Page): Promise<void> {
    this.window.dispatchEvent(new Event("pagehide"));
    await page.documents.flush();
    this.crash(page);
  }

  /** The page is gone without a word. */
  crash(page: Page): void {
    for (const run of page.streams.runs.values()) {
      run.isOver = true;
      run.connection?.abort();
    }
    page.channel?.close();
  }

  close(): void {
    for (const channel of this.channels) channel.close();
  }
}

export interface Page {
  generation: typeof import("../state/generation");
  conversations: typeof import("../state/conversations");
  documents: typeof import("../state/documents");
  database: typeof import("../store/database");
  client: typeof import("../api/client");
  server: typeof import("../state/server");
  conversation: typeof import("../state/conversation");
  settings: typeof import("../state/settings");
  streams: typeof import("../state/streams");
  channel: BroadcastChannel | undefined;
}

/** Loads the page, as the browser does: a tab. */
export async function opened(browser: Browser): Promise<Page> {
  vi.stubGlobal("sessionStorage", new FakeStorage());
  const page = await loaded();
  const before = browser.channels.length;
  await page.generation.attachAll();
  page.channel = browser.channels[before];
  return page;
}

async function loaded(): Promise<Page> {
  vi.resetModules();
  return {
    channel: undefined,
    generation: await import("../state/generation"),
    conversations: await import("../state/conversations"),
    documents: await import("../state/documents"),
    database: await import("../store/database"),
    client: await import("../api/client"),
    server: await import("../state/server"),
    conversation: await import("../state/conversation"),
    settings: await import("../state/settings"),
    streams: await import("../state/streams"),
  };
}

/** Waits for something that must come true. */
export async function until(condition: () => boolean | undefined, what = "what the test waits for"): Promise<void> {
  for (let turn = 0; turn < 20_000; turn++) {
    if (condition()) return;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  throw new Error(`${what} never came`);
}
