/** Conversations in memory, for browsers that store nothing for the page. They are gone when the tab closes. */
import type { Conversation, Id } from "../state/conversation";
import type { Database, Save, Saved } from "./database";
import { headOf, headRecordOf, type Claim, type Draft, type Head } from "./records";

export class MemoryDatabase implements Database {
  readonly #conversations = new Map<Id, Conversation>();
  readonly #removed = new Map<Id, number>();
  readonly #drafts = new Map<Id, Draft>();

  async heads(): Promise<Head[]> {
    return this.#kept().map((conversation) => headOf(headRecordOf(conversation)));
  }

  async load(id: Id): Promise<Conversation | undefined> {
    return this.#removed.has(id) ? undefined : this.#conversations.get(id);
  }

  async save({ conversation }: Save): Promise<Saved> {
    this.#conversations.set(conversation.id, conversation);
    return { newer: [], lost: [], removed: false };
  }

  async remove(id: Id, at: number | null): Promise<void> {
    if (at === null) this.#removed.delete(id);
    else this.#removed.set(id, at);
  }

  async purge(before: number): Promise<void> {
    for (const [id, at] of this.#removed) if (at < before) this.#conversations.delete(id);
  }

  async searchText(query: string): Promise<Set<Id>> {
    const wanted = query.toLocaleLowerCase();
    const has = (conversation: Conversation): boolean =>
      Object.values(conversation.messages).some(({ text }) => text.toLocaleLowerCase().includes(wanted));
    return new Set(this.#kept().filter(has).map(({ id }) => id));
  }

  async claims(): Promise<Claim[]> {
    return [];
  }

  async takeOver(): Promise<boolean> {
    return false;
  }

  async draft(id: Id): Promise<Draft | undefined> {
    return this.#drafts.get(id);
  }

  async saveDraft(id: Id, draft: Draft): Promise<void> {
    this.#drafts.set(id, draft);
  }

  #kept(): Conversation[] {
    return [...this.#conversations.values()].filter(({ id }) => !this.#removed.has(id));
  }
}
