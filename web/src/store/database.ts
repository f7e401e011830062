/**
 * Conversations in IndexedDB. Only this module and `memory` know where they are.
 *
 * A save is one transaction that first looks at what other tabs stored: it never replaces a newer message, nor one that
 * another tab runs.
 */
import { signal, type Signal } from "@preact/signals";
import { openDB, type DBSchema, type IDBPDatabase } from "idb";
import type { Conversation, Id, Message } from "../state/conversation";
import { isNewer } from "../state/merge";
import { MemoryDatabase } from "./memory";
import { storedName } from "./place";
import { conversationFrom, headOf, headRecordOf, mergedHead, messageFrom } from "./records";
import type { Claim, Draft, DraftRecord, Head, HeadRecord, MessageRecord } from "./records";

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

interface Schema extends DBSchema {
  heads: { key: Id; value: HeadRecord };
  messages: { key: Id; value: MessageRecord; indexes: { conversation: Id } };
  claims: { key: Id; value: Claim };
  drafts: { key: Id; value: DraftRecord };
}

let opened: Promise<Database> | undefined;

/** The database; in memory where the browser has none. */
export function database(): Promise<Database> {
  opened ??= open();
  return opened;
}

async function open(): Promise<Database> {
  try {
    return new IndexedDatabase(await connect());
  } catch (error) {
    storageFault.value = { kind: "memory", message: messageOf(error) };
    return new MemoryDatabase();
  }
}

function connect(): Promise<IDBPDatabase<Schema>> {
  return openDB<Schema>(storedName("conversations"), 1, {
    upgrade(db) {
      db.createObjectStore("heads", { keyPath: "id" });
      db.createObjectStore("messages", { keyPath: "id" }).createIndex("conversation", "conversation");
      db.createObjectStore("claims", { keyPath: "message" });
      db.createObjectStore("drafts", { keyPath: "id" });
    },
    blocking: (_current, _blocked, event) => (event.target as IDBDatabase).close(),
  });
}

class IndexedDatabase implements Database {
  #db: IDBPDatabase<Schema>;

  constructor(db: IDBPDatabase<Schema>) {
    this.#db = db;
  }

  async heads(): Promise<Head[]> {
    const records = await this.#try((db) => db.getAll("heads"));
    return records.filter((record) => record.removedAt === undefined).map(headOf);
  }

  async load(id: Id): Promise<Conversation | undefined> {
    return this.#try(async (db) => {
      const tx = db.transaction(["heads", "messages"]);
      const head = await tx.objectStore("heads").get(id);
      const messages = await tx.objectStore("messages").index("conversation").getAll(id);
      return head && head.removedAt === undefined ? conversationFrom(head, messages) : undefined;
    });
  }

  async save(save: Save): Promise<Saved> {
    return this.#try(async (db) => {
      const tx = db.transaction(["heads", "messages", "claims"], "readwrite", { durability: "relaxed" });
      const saved: Saved = { newer: [], lost: [], removed: false };
      const mine = headRecordOf(save.conversation);
      const stored = await tx.objectStore("heads").get(mine.id);
      if (stored?.removedAt !== undefined) return { ...saved, removed: true };
      const head = mergedHead(mine, stored);
      await tx.objectStore("heads").put(head);
      for (const message of save.changed) {
        const claim = await tx.objectStore("claims").get(message.id);
        const other = await tx.objectStore("messages").get(message.id);
        const taken = claim !== undefined && claim.tab !== save.tab;
        if (taken) saved.lost.push(message.id);
        if (other && (taken || isNewer(other, message))) saved.newer.push(messageFrom(other));
        else if (!(message.id in (head.removed ?? {}))) {
          await tx.objectStore("messages").put({ ...message, conversation: mine.id });
        }
        if (save.running.has(message.id) && !taken) {
          await tx.objectStore("claims").put({ message: message.id, conversation: mine.id, tab: save.tab });
        }
      }
      for (const id of save.ended) {
        const claim = await tx.objectStore("claims").get(id);
        if (claim?.tab === save.tab) await tx.objectStore("claims").delete(id);
      }
      for (const id of Object.keys(save.conversation.removed ?? {})) {
        await tx.objectStore("messages").delete(id);
        await tx.objectStore("claims").delete(id);
      }
      await tx.done;
      return saved;
    });
  }

  async remove(id: Id, at: number | null): Promise<void> {
    await this.#try(async (db) => {
      const tx = db.transaction("heads", "readwrite");
      const record = await tx.store.get(id);
      if (record) {
        const { removedAt: _, ...rest } = record;
        await tx.store.put(at === null ? rest : { ...rest, removedAt: at });
      }
      await tx.done;
    });
  }

  async purge(before: number): Promise<void> {
    await this.#try(async (db) => {
      const tx = db.transaction(["heads", "messages", "claims", "drafts"], "readwrite");
      for (const record of await tx.objectStore("heads").getAll()) {
        if (record.removedAt === undefined || record.removedAt >= before) continue;
        for (const key of await tx.objectStore("messages").index("conversation").getAllKeys(record.id)) {
          await tx.objectStore("messages").delete(key);
          await tx.objectStore("claims").delete(key);
        }
        await tx.objectStore("drafts").delete(record.id);
        await tx.objectStore("heads").delete(record.id);
      }
      await tx.done;
    });
  }

  async searchText(query: string): Promise<Set<Id>> {
    const wanted = query.toLocaleLowerCase();
    const found = new Set<Id>();
    await this.#try(async (db) => {
      let cursor = await db.transaction("messages").store.openCursor();
      while (cursor) {
        const { conversation, text } = cursor.value;
        if (!found.has(conversation) && text.toLocaleLowerCase().includes(wanted)) found.add(conversation);
        cursor = await cursor.continue();
      }
    });
    return found;
  }

  claims(): Promise<Claim[]> {
    return this.#try((db) => db.getAll("claims"));
  }

  async takeOver(message: Id, from: Id, to: Id): Promise<boolean> {
    return this.#try(async (db) => {
      const tx = db.transaction("claims", "readwrite");
      const claim = await tx.store.get(message);
      const isFree = claim?.tab === from;
      if (claim && isFree) await tx.store.put({ ...claim, tab: to });
      await tx.done;
      return isFree;
    });
  }

  draft(id: Id): Promise<Draft | undefined> {
    return this.#try((db) => db.get("drafts", id));
  }

  async saveDraft(id: Id, draft: Draft): Promise<void> {
    const isEmpty = draft.text === "" && draft.attachments.length === 0;
    await this.#try(async (db) => {
      if (isEmpty) await db.delete("drafts", id);
      else await db.put("drafts", { ...draft, id, updatedAt: Date.now() });
    });
  }

  /** Connects again, once, where the browser closed the database ("clear site data", or a long sleep). */
  async #try<T>(work: (db: IDBPDatabase<Schema>) => Promise<T>): Promise<T> {
    try {
      return await work(this.#db);
    } catch (error) {
      if (!(error instanceof DOMException) || error.name !== "InvalidStateError") throw error;
      this.#db = await connect();
      return work(this.#db);
    }
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
