/** What is written and not sent yet, for the conversation that is open. It is kept in this browser, files included. */
import { effect, signal } from "@preact/signals";

import type { Id } from "../state/conversation";
import { draftOf, keepDraft, type Draft } from "../state/drafts";
import { current } from "../state/conversations";

export type { Draft };

const EMPTY: Draft = { text: "", attachments: [] };

export const draft = signal<Draft>(EMPTY);
let owner: Id | undefined;

effect(() => {
  const { id } = current.value;
  if (id === owner) return;
  owner = id;
  draft.value = EMPTY;
  void draftOf(id).then((stored) => {
    if (owner === id && draft.peek() === EMPTY) draft.value = stored; // what was typed meanwhile is newer
  });
});

export function setDraft(patch: Partial<Draft>): void {
  draft.value = { ...draft.peek(), ...patch };
  if (owner !== undefined) keepDraft(owner, draft.peek());
}
