/** What is typed and not sent yet, by conversation: kept at each pause in typing and when the page hides. */
import { database, noteStorage } from "../store/database";
import { readValue, writeValue } from "../store/place";
import type { Draft } from "../store/records";
import type { Id } from "./conversation";

export type { Draft } from "../store/records";

const AFTER = 300; // ms without a key

const EMPTY: Draft = { text: "", attachments: [] };

let unsaved: { id: Id; draft: Draft } | undefined;
let timer: ReturnType<typeof setTimeout> | undefined;

/** The draft of a conversation, from this tab's last page or from storage. */
export async function draftOf(id: Id): Promise<Draft> {
  if (unsaved?.id === id) return unsaved.draft;
  const stored = await database()
    .then((store) => store.draft(id))
    .catch(() => undefined);
  const last = lastText(id);
  return last === undefined ? (stored ?? EMPTY) : { attachments: stored?.attachments ?? [], text: last };
}

/** Keeps a draft; an empty one is forgotten. */
export function keepDraft(id: Id, draft: Draft): void {
  if (unsaved && unsaved.id !== id) saveDraft();
  unsaved = { id, draft };
  clearTimeout(timer);
  timer = setTimeout(saveDraft, AFTER);
}

/** Saves it now. The text also goes where a page that closes can still write. */
export function saveDraft(): void {
  clearTimeout(timer);
  if (!unsaved) return;
  const { id, draft } = unsaved;
  unsaved = undefined;
  writeValue("session", "draft", draft.text === "" ? null : JSON.stringify({ id, text: draft.text }));
  void database()
    .then((store) => store.saveDraft(id, draft))
    .catch(noteStorage);
}

function lastText(id: Id): string | undefined {
  try {
    const last = JSON.parse(readValue("session", "draft") ?? "null") as { id?: unknown; text?: unknown } | null;
    return last?.id === id && typeof last.text === "string" ? last.text : undefined;
  } catch {
    return undefined;
  }
}

if (typeof window !== "undefined") window.addEventListener("pagehide", saveDraft);
