/** Where conversations are kept: in IndexedDB, or in memory where the browser has none. */
import { signal, type Signal } from "@preact/signals";
import type { Conversation, Id, Message } from "../state/conversation";
import { IndexedDatabase } from "./indexed";
import { MemoryDatabase } from "./memory";
import type { Claim, Draft, Head } from "./records";

/**
 * Why conversations are not being stored: null if they are. "memory": this browser stores nothing for the page (a private
 * window); "full": there is no room; "failed": something else. What is unsaved stays in memory, and is tried again.
 */
export const storageFault: Signal<{ kind: "memory" | "full" | "failed"; message: string } | null> = signal(null);

export interface Saved {
  /** What other tabs stored meanwhile and this save left alone. */
  newer: Message[];
  /** Running answers that another tab took over. */
  lost: Id[];
  /** Another tab removed the conversation: nothing was saved. */
  removed: boolean;
}

export interface Save {
  conversation: Conversation;
  changed: Message[]; // those to be written
  running: ReadonlySet<Id>; // of those, the ones that `tab` runs
  ended: Id[]; // those that it ran until now
  tab: Id;
}

export interface Database {
  heads(): Promise<Head[]>;
  load(id: Id): Promise<Conversation | undefined>;
  save(save: Save): Promise<Saved>;
  remove(id: Id, at: number | null): Promise<void>; // null takes it back
  purge(before: number): Promise<void>; // deletes what was removed before
  searchText(query: string): Promise<Set<Id>>;
  claims(): Promise<Claim[]>;
  takeOver(message: Id, from: Id, to: Id): Promise<boolean>; // false: another tab was faster
  draft(id: Id): Promise<Draft | undefined>;
  saveDraft(id: Id, draft: Draft): Promise<void>;
}

let opened: Promise<Database> | undefined;

/** The database; in memory where the browser has none. */
export function database(): Promise<Database> {
  opened ??= open();
  return opened;
}

async function open(): Promise<Database> {
  try {
    return await IndexedDatabase.open();
  } catch (error) {
    storageFault.value = { kind: "memory", message: messageOf(error) };
    return new MemoryDatabase();
  }
}

/** Says that storing failed; null: that it works again. */
export function noteStorage(error: unknown): void {
  if (storageFault.peek()?.kind === "memory") return;
  if (error === null) storageFault.value = null;
  else storageFault.value = { kind: isFull(error) ? "full" : "failed", message: messageOf(error) };
}

function isFull(error: unknown): boolean {
  return error instanceof DOMException && error.name === "QuotaExceededError";
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
