/**
 * Talks to the other tabs of this browser: what changed, which tabs are alive, how many streams they want.
 *
 * Messages reach tabs in the background too, unless the browser has frozen them; storage has the last word on who runs what.
 */
import type { Id } from "../state/conversation";
import { newId } from "../state/ids";
import { storedName } from "./place";
import type { Head } from "./records";

/** This tab, until it is loaded again. */
export const tab: Id = newId();

export type TabMessage =
  | { type: "changed"; head: Head } // it was saved
  | { type: "removed"; conversation: Id }
  | { type: "who" } // every tab answers "here"
  | { type: "here"; streams: number }
  | { type: "leaving" } // this tab closes, and runs no answer any more
  | { type: "want"; message: Id } // a reader looks at it: may I run it?
  | { type: "free"; message: Id } // the sender runs it no more
  | { type: "stop"; message: Id };

type Listener = (message: TabMessage, from: Id) => void;

const listeners = new Set<Listener>();
const streams = new Map<Id, { count: number; at: number }>();
const STREAMS_STALE = 15_000; // ms after which a tab that says nothing is not counted

let channel: BroadcastChannel | null | undefined;

export function tell(message: TabMessage): void {
  connect()?.postMessage({ ...message, from: tab });
}

/** Calls `listener` for each message of another tab; returns what ends that. */
export function listen(listener: Listener): () => void {
  connect();
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** The other tabs that answer within `wait` ms. */
export async function others(wait = 400): Promise<Set<Id>> {
  const alive = new Set<Id>();
  const end = listen((message, from) => message.type === "here" && alive.add(from));
  tell({ type: "who" });
  await new Promise((resolve) => setTimeout(resolve, channel ? wait : 0));
  end();
  return alive;
}

/** How many streams the tabs want that come before this one. */
export function streamsBefore(): number {
  let count = 0;
  for (const [id, wanted] of streams) if (id < tab && Date.now() - wanted.at < STREAMS_STALE) count += wanted.count;
  return count;
}

function connect(): BroadcastChannel | null {
  if (channel !== undefined) return channel;
  channel = opened();
  channel?.addEventListener("message", ({ data }: MessageEvent<TabMessage & { from: Id }>) => {
    if (data.type === "here") streams.set(data.from, { count: data.streams, at: Date.now() });
    if (data.type === "leaving") streams.delete(data.from);
    for (const listener of listeners) listener(data, data.from);
  });
  return channel;
}

/** null: this browser has none, or not for this page. */
function opened(): BroadcastChannel | null {
  try {
    return new BroadcastChannel(storedName("tabs"));
  } catch {
    return null;
  }
}
