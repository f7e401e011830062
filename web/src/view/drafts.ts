/** What was written and not sent yet, by conversation: the text survives a reload, attached files stay in memory. */
import { signal } from "@preact/signals";

import type { Attachment } from "../state/conversation";
import { current } from "../state/library";

const KEY = "antiphon.drafts";
const KEPT = 30; // conversations
const NEW = "new";

export interface Draft {
  text: string;
  attachments: Attachment[];
}

const EMPTY: Draft = { text: "", attachments: [] };

const drafts = signal<ReadonlyMap<string, Draft>>(new Map(load().map(([key, text]) => [key, { text, attachments: [] }])));

/** A conversation without messages is new each time, so all of them share a draft. */
function keyNow(): string {
  const { id, messages } = current.value;
  return Object.keys(messages).length ? id : NEW;
}

export function draftNow(): Draft {
  return drafts.value.get(keyNow()) ?? EMPTY;
}

export function setDraft(patch: Partial<Draft>): void {
  const key = keyNow();
  const next = new Map(drafts.value);
  const draft = { ...(next.get(key) ?? EMPTY), ...patch };
  next.delete(key);
  if (draft.text || draft.attachments.length) next.set(key, draft);
  drafts.value = next;
  store();
}

function store(): void {
  const texts = [...drafts.peek()].filter(([, draft]) => draft.text).map(([key, draft]) => [key, draft.text]);
  try {
    localStorage.setItem(KEY, JSON.stringify(texts.slice(-KEPT)));
  } catch {
    // Storage is full or forbidden: the draft is still in memory.
  }
}

function load(): [string, string][] {
  try {
    const stored: unknown = JSON.parse(localStorage.getItem(KEY) ?? "[]");
    return Array.isArray(stored) ? stored.filter(isEntry) : [];
  } catch {
    return [];
  }
}

function isEntry(entry: unknown): entry is [string, string] {
  return Array.isArray(entry) && entry.length === 2 && entry.every((part) => typeof part === "string");
}
