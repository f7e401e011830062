/**
 * The conversations that this tab has loaded, and their saving: a second after a change, at once where it matters.
 *
 * What is unsaved is never dropped: a save that fails is tried again. What other tabs saved is merged in.
 */
import type { Conversation, Id, Message } from "./conversation";
import { merge } from "./merge";
import { database, noteStorage, storageFault, type Saved } from "../store/database";
import { headOf, headRecordOf, type Head } from "../store/records";
import { tab, tell } from "../store/tabs";

const SAVE_AFTER = 1000; // ms: an answer that grows
const TRY_AGAIN_AFTER = 3000;

const loaded = new Map<Id, Conversation>();
const stored = new Map<Id, Map<Id, Message>>(); // the messages as they are in the database
const dirty = new Set<Id>();
const saving = new Set<Promise<void>>();
const ended = new Map<Id, Set<Id>>(); // by conversation: the claims to be given up
let timer: ReturnType<typeof setTimeout> | undefined;
let due = Infinity; // when the timer ends

/** The answers that this tab runs, with their conversations. */
export const running = new Map<Id, Id>();

export const hooks: {
  changed: (conversation: Conversation) => void;
  lost: (conversation: Id, messages: Id[]) => void; // another tab took these answers over
  removed: (conversation: Id) => void; // another tab removed it
} = { changed: () => undefined, lost: () => undefined, removed: () => undefined };

export function documentOf(id: Id): Conversation | undefined {
  return loaded.get(id);
}

/** Keeps a new conversation; it is stored with its first message. */
export function adopt(conversation: Conversation): void {
  loaded.set(conversation.id, conversation);
}

/** The conversation, from memory or the database. */
export async function load(id: Id): Promise<Conversation | undefined> {
  const known = loaded.get(id);
  if (known) return known;
  const found = await (await database()).load(id);
  const meanwhile = loaded.get(id);
  if (meanwhile || !found) return meanwhile;
  loaded.set(id, found);
  stored.set(id, new Map(Object.entries(found.messages)));
  return found;
}

/** Forgets the conversations that nobody needs: `kept` and those that are unsaved or run stay. */
export function unload(kept: Id): void {
  const busy = new Set([kept, ...dirty, ...running.values()]);
  for (const id of loaded.keys()) {
    if (busy.has(id)) continue;
    loaded.delete(id);
    stored.delete(id);
  }
}

export function drop(id: Id): void {
  loaded.delete(id);
  stored.delete(id);
  dirty.delete(id);
}

/** Changes a conversation, shows it and saves it. */
export function changeIn(id: Id, change: (conversation: Conversation) => Conversation): void {
  if (!changeQuietly(id, change)) return;
  hooks.changed(loaded.get(id) as Conversation);
  schedule(0); // what the reader did is there even if they load the page again at once
}

/** The same without showing it: the text of a running answer is shown by `live`. */
export function changeQuietly(id: Id, change: (conversation: Conversation) => Conversation): boolean {
  const before = loaded.get(id);
  if (!before) return false;
  const after = change(before);
  if (after === before) return false;
  loaded.set(id, after);
  dirty.add(id);
  schedule(SAVE_AFTER);
  return true;
}

export function begin(message: Id, conversation: Id): void {
  running.set(message, conversation);
}

export function end(message: Id): void {
  const conversation = running.get(message);
  if (conversation === undefined) return;
  running.delete(message);
  const claims = ended.get(conversation) ?? new Set();
  ended.set(conversation, claims.add(message));
  dirty.add(conversation);
}

/** Takes in a conversation from elsewhere; one that is there is merged with it. */
export function include(conversation: Conversation): void {
  const mine = loaded.get(conversation.id);
  const all = mine ? merge(mine, conversation) : conversation;
  loaded.set(all.id, all);
  dirty.add(all.id);
  hooks.changed(all);
}

/** Saves all that is unsaved, now, and waits for what is being saved. Never throws: `storageFault` says what went wrong. */
export async function flush(): Promise<void> {
  clearTimeout(timer);
  due = Infinity;
  for (const id of dirty) {
    const one = save(id).finally(() => saving.delete(one));
    saving.add(one);
  }
  await Promise.all(saving);
}

/** Whether something of it is not saved yet, after `flush`: it could not be. */
export function isUnsaved(id: Id): boolean {
  return dirty.has(id);
}

/** Merges in what another tab saved. */
export async function refresh(id: Id): Promise<void> {
  if (!loaded.has(id)) return;
  const theirs = await (await database()).load(id);
  const mine = loaded.get(id);
  if (theirs && mine) take(merge(mine, theirs), Object.values(theirs.messages));
}

function schedule(delay: number): void {
  const wanted = Date.now() + delay;
  if (due <= wanted) return;
  clearTimeout(timer);
  due = wanted;
  timer = setTimeout(() => void flush(), delay);
}

async function save(id: Id): Promise<void> {
  dirty.delete(id);
  const conversation = loaded.get(id);
  if (!conversation) return;
  const known = stored.get(id) ?? new Map<Id, Message>();
  const changed = Object.values(conversation.messages).filter((message) => known.get(message.id) !== message);
  if (known.size === 0 && changed.length === 0) return;
  const claims = [...(ended.get(id) ?? [])];
  const mine = new Set([...running].filter(([, owner]) => owner === id).map(([message]) => message));
  try {
    const saved = await (await database()).save({ conversation, changed, running: mine, ended: claims, tab });
    noteStorage(null);
    for (const claim of claims) ended.get(id)?.delete(claim);
    settle(conversation, changed, saved);
  } catch (error) {
    noteStorage(error);
    dirty.add(id);
    schedule(TRY_AGAIN_AFTER);
  }
}

function settle(conversation: Conversation, changed: Message[], saved: Saved): void {
  const { id } = conversation;
  if (saved.removed) {
    hooks.removed(id);
    return;
  }
  const known = stored.get(id) ?? new Map<Id, Message>();
  stored.set(id, known);
  for (const message of changed) known.set(message.id, message);
  const mine = loaded.get(id);
  if (mine && saved.newer.length > 0) {
    const newer = Object.fromEntries(saved.newer.map((message) => [message.id, message]));
    take({ ...mine, messages: { ...mine.messages, ...newer } }, saved.newer);
  }
  if (saved.lost.length > 0) hooks.lost(id, saved.lost);
  if (storageFault.peek() === null) tell({ type: "changed", head: shownHead(conversation) });
}

/** Shows a merged conversation; `theirs` are as stored. */
function take(merged: Conversation, theirs: Message[]): void {
  const known = stored.get(merged.id) ?? new Map<Id, Message>();
  stored.set(merged.id, known);
  for (const message of theirs) if (merged.messages[message.id] === message) known.set(message.id, message);
  loaded.set(merged.id, merged);
  hooks.changed(merged);
}

export function shownHead(conversation: Conversation): Head {
  return headOf(headRecordOf(conversation));
}
