/**
 * The list of conversations, and the one that is shown: `#/c/ID` in the address, so that the browser's own back works.
 */
import { batch, signal, type Signal } from "@preact/signals";
import { database, noteStorage } from "../store/database";
import { readValue, writeValue } from "../store/place";
import type { Head } from "../store/records";
import { listen, tell } from "../store/tabs";
import { newConversation, withHead, type Conversation, type Id } from "./conversation";
import * as documents from "./documents";
import { newId } from "./ids";

export type { Head } from "../store/records";

const NEW = "new"; // the id of the conversation that has no message yet, so that its draft survives a reload
const REMOVING = "removing"; // the ids of conversations that the database does not know yet to be removed
const UNDO_FOR = 24 * 3600_000; // ms: what was removed before is deleted

export const heads: Signal<Head[]> = signal([]);
export const current: Signal<Conversation> = signal(newConversation(readValue("session", NEW) ?? newId(), Date.now()));

documents.adopt(current.peek());
writeValue("session", NEW, current.peek().id);
documents.hooks.changed = shown;
documents.hooks.removed = removedElsewhere;

/** Called before a conversation is removed: what runs in it has to end. */
export const beforeRemoval = new Set<(id: Id) => void>();

let started: Promise<void> | undefined;
let lastRemoved: Head | undefined;
let removing: Promise<void> = Promise.resolve();
let wanted: Id | undefined; // what is being opened

/** Reads the list, opens what the address names, listens to other tabs. Once. */
export function startConversations(): Promise<void> {
  started ??= start();
  return started;
}

async function start(): Promise<void> {
  const store = await database();
  for (const id of beingRemoved()) await removeStored(id).catch(noteStorage);
  await store.heads().then((all) => (heads.value = sorted(all)), noteStorage);
  listen((message) => {
    if (message.type === "changed") changedElsewhere(message.head);
    if (message.type === "removed") removedElsewhere(message.conversation);
  });
  window.addEventListener("hashchange", () => void route().catch(noteStorage));
  window.addEventListener("pagehide", () => void documents.flush());
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "hidden") void documents.flush();
  });
  await route().catch(noteStorage);
  await store.purge(Date.now() - UNDO_FOR).catch(() => undefined); // only tidies up
}

/** Shows a conversation; one that is not there is as good as a new one. */
export async function open(id: Id): Promise<void> {
  wanted = id;
  const conversation = await documents.load(id);
  if (wanted !== id) return; // the reader has moved on
  if (!conversation) {
    startNew();
    return;
  }
  show(conversation);
}

export function startNew(): void {
  wanted = undefined;
  const isNew = Object.keys(current.peek().messages).length === 0;
  const conversation = isNew ? current.peek() : newConversation(newId(), Date.now());
  documents.adopt(conversation);
  writeValue("session", NEW, conversation.id);
  show(conversation);
}

export function rename(id: Id, title: string): void {
  void changeAnywhere(id, (conversation) => withHead(conversation, { title: title.trim() })).catch(noteStorage);
}

export function pin(id: Id, on: boolean): void {
  void changeAnywhere(id, (conversation) => withHead(conversation, { pinned: on })).catch(noteStorage);
}

/**
 * Removes a conversation; `undoRemove` takes back the last one.
 *
 * The database takes a moment. A page that is closed before that finishes when it is opened again.
 */
export function remove(id: Id): void {
  lastRemoved = heads.peek().find((head) => head.id === id);
  noteRemoval(id, true);
  for (const prepare of beforeRemoval) prepare(id);
  const saved = documents.flush();
  if (current.peek().id === id) startNew();
  unlist(id);
  removing = saved.then(() => removeNow(id)).catch(noteStorage);
}

export function undoRemove(): void {
  const head = lastRemoved;
  lastRemoved = undefined;
  if (head) void removing.then(() => restore(head)).catch(noteStorage);
}

/** The conversations whose title or text contains the words. */
export async function search(query: string): Promise<Head[]> {
  const words = query.trim().toLocaleLowerCase();
  if (words === "") return heads.peek();
  await documents.flush();
  const found = await (await database()).searchText(words);
  return heads.peek().filter((head) => found.has(head.id) || head.title.toLocaleLowerCase().includes(words));
}

/** Changes the conversation that is shown. */
export function change(f: (conversation: Conversation) => Conversation): void {
  documents.changeIn(current.peek().id, f);
}

/** Adds conversations, for an import; those that are there are merged. */
export async function add(conversations: Conversation[]): Promise<void> {
  for (const conversation of conversations) {
    await documents.load(conversation.id);
    documents.include(conversation);
  }
  await documents.flush();
}

async function changeAnywhere(id: Id, f: (conversation: Conversation) => Conversation): Promise<void> {
  if (await documents.load(id)) documents.changeIn(id, f);
  await documents.flush();
}

async function removeNow(id: Id): Promise<void> {
  unlist(id); // the save has listed it again
  documents.drop(id);
  await removeStored(id);
  tell({ type: "removed", conversation: id });
}

async function removeStored(id: Id): Promise<void> {
  await (await database()).remove(id, Date.now());
  noteRemoval(id, false);
}

function beingRemoved(): Id[] {
  return (readValue("local", REMOVING) ?? "").split(" ").filter(Boolean);
}

function noteRemoval(id: Id, isPending: boolean): void {
  const others = beingRemoved().filter((other) => other !== id);
  const all = isPending ? [...others, id] : others;
  writeValue("local", REMOVING, all.length > 0 ? all.join(" ") : null);
}

async function restore(head: Head): Promise<void> {
  noteRemoval(head.id, false);
  await (await database()).remove(head.id, null);
  setHead(head);
  tell({ type: "changed", head });
  await open(head.id);
}

function unlist(id: Id): void {
  heads.value = heads.peek().filter((head) => head.id !== id);
}

function changedElsewhere(head: Head): void {
  setHead(head);
  void documents.refresh(head.id).catch(noteStorage);
}

function removedElsewhere(id: Id): void {
  for (const prepare of beforeRemoval) prepare(id);
  documents.drop(id);
  unlist(id);
  if (current.peek().id === id) startNew();
}

function shown(conversation: Conversation): void {
  batch(() => {
    if (Object.keys(conversation.messages).length > 0) setHead(documents.shownHead(conversation));
    if (current.peek().id !== conversation.id) return;
    current.value = conversation;
    if (Object.keys(conversation.messages).length > 0) address(conversation.id);
  });
}

function show(conversation: Conversation): void {
  current.value = conversation;
  address(Object.keys(conversation.messages).length > 0 ? conversation.id : undefined);
  documents.unload(conversation.id);
}

function setHead(head: Head): void {
  const old = heads.peek().find(({ id }) => id === head.id);
  if (old && old.title === head.title && old.pinned === head.pinned && old.updatedAt === head.updatedAt) return;
  heads.value = sorted([...heads.peek().filter(({ id }) => id !== head.id), head]);
}

function sorted(all: Head[]): Head[] {
  return all.toSorted((a, b) => Number(b.pinned) - Number(a.pinned) || b.updatedAt - a.updatedAt);
}

async function route(): Promise<void> {
  const id = /^#\/c\/([\w-]+)$/u.exec(location.hash)?.[1];
  if (id === current.peek().id) return;
  if (id !== undefined) await open(id);
  else if (Object.keys(current.peek().messages).length > 0) startNew();
}

function address(id: Id | undefined): void {
  if (id !== undefined && readValue("session", NEW) === id) writeValue("session", NEW, null);
  const hash = id === undefined ? "#/" : `#/c/${id}`;
  const isEmpty = location.hash === "" && id === undefined;
  if (location.hash !== hash && !isEmpty) location.hash = hash;
}
