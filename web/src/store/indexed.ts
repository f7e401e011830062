/**
 * Conversations in IndexedDB, as `Database` promises: a save is one transaction, all of it or nothing.
 *
 * It first looks at what other tabs stored, and never replaces a newer message, nor one that another tab runs.
 */
import { openDB, type DBSchema, type IDBPDatabase, type IDBPTransaction, type StoreNames } from "idb";
import type { Conversation, Id } from "../state/conversation";
import { isNewer } from "../state/merge";
import type { Database, Save, Saved } from "./database";
import { storedName } from "./place";
import { conversationFrom, headOf, headRecordOf, mergedHead, messageFrom } from "./records";
import type { Claim, Draft, DraftRecord, Head, HeadRecord, MessageRecord } from "./records";

interface Schema extends DBSchema {
  heads: { key: Id; value: HeadRecord };
  messages: { key: Id; value: MessageRecord; indexes: { conversation: Id } };
  claims: { key: Id; value: Claim };
  drafts: { key: Id; value: DraftRecord };
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

type Transaction = IDBPTransaction<Schema, StoreNames<Schema>[], "readwrite">;

export class IndexedDatabase implements Database {
  #db: IDBPDatabase<Schema>;

  private constructor(db: IDBPDatabase<Schema>) {
    this.#db = db;
  }

  /** Throws where the browser has no IndexedDB for the page. */
  static async open(): Promise<IndexedDatabase> {
    return new IndexedDatabase(await connect());
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

  save(save: Save): Promise<Saved> {
    return this.#whole(["heads", "messages", "claims"], async (tx) => {
      const saved: Saved = { newer: [], lost: [], removed: false };
      const mine = headRecordOf(save.conversation);
      const stored = await tx.objectStore("heads").get(mine.id);
      if (stored?.removedAt !== undefined) return { ...saved, removed: true };
      const head = mergedHead(mine, stored);
      await tx.objectStore("heads").put(head);
      for (const message of save.changed) {
        const claim = await tx.objectStore("claims").get(message.id);
        const other = await tx.objectStore("messages").get(message.id);
        const isTaken = claim !== undefined && claim.tab !== save.tab;
        if (isTaken) saved.lost.push(message.id);
        if (other && (isTaken || isNewer(other, message))) saved.newer.push(messageFrom(other));
        else if (!(message.id in (head.removed ?? {}))) {
          await tx.objectStore("messages").put({ ...message, conversation: mine.id });
        }
        if (save.running.has(message.id) && !isTaken) {
          await tx.objectStore("claims").put({ message: message.id, conversation: mine.id, tab: save.tab });
        }
      }
      await release(tx, save);
      return saved;
    });
  }

  async remove(id: Id, at: number | null): Promise<void> {
    await this.#whole(["heads"], async (tx) => {
      const record = await tx.objectStore("heads").get(id);
      if (!record) return;
      const { removedAt: _, ...rest } = record;
      await tx.objectStore("heads").put(at === null ? rest : { ...rest, removedAt: at });
    });
  }

  async purge(before: number): Promise<void> {
    await this.#whole(["heads", "messages", "claims", "drafts"], async (tx) => {
      for (const record of await tx.objectStore("heads").getAll()) {
        if (record.removedAt === undefined || record.removedAt >= before) continue;
        for (const key of await tx.objectStore("messages").index("conversation").getAllKeys(record.id)) {
          await tx.objectStore("messages").delete(key);
          await tx.objectStore("claims").delete(key);
        }
        await tx.objectStore("drafts").delete(record.id);
        await tx.objectStore("heads").delete(record.id);
      }
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

  takeOver(message: Id, from: Id, to: Id): Promise<boolean> {
    return this.#whole(["claims"], async (tx) => {
      const claim = await tx.objectStore("claims").get(message);
      const isFree = claim?.tab === from;
      if (claim && isFree) await tx.objectStore("claims").put({ ...claim, tab: to });
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

  /** Runs `work` in a transaction. */
  #whole<R>(stores: StoreNames<Schema>[], work: (tx: Transaction) => Promise<R>): Promise<R> {
    return this.#try(async (db) => {
      const tx = db.transaction(stores, "readwrite", { durability: "relaxed" });
      tx.done.catch(() => undefined); // what went wrong is thrown below
      try {
        const result = await work(tx);
        await tx.done;
        return result;
      } catch (error) {
        abort(tx);
        throw error;
      }
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

/** Gives up the claims of answers that have ended, and deletes what the user removed. */
async function release(tx: Transaction, { conversation, ended, tab }: Save): Promise<void> {
  for (const id of ended) {
    const claim = await tx.objectStore("claims").get(id);
    if (claim?.tab === tab) await tx.objectStore("claims").delete(id);
  }
  for (const id of Object.keys(conversation.removed ?? {})) {
    await tx.objectStore("messages").delete(id);
    await tx.objectStore("claims").delete(id);
  }
}

function abort(tx: Transaction): void {
  try {
    tx.abort();
  } catch {
    // The browser has done so.
  }
}
