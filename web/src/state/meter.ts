/** How much of the model's context the conversation and the draft would use: the server counts, with its own template. */
import { signal, type Signal } from "@preact/signals";
import { countTokens } from "../api/tokens";
import type { AnswerRequest } from "../api/types";
import { withAttachments } from "./attachments";
import { path, type Attachment } from "./conversation";
import { current } from "./conversations";
import { reach, status } from "./server";
import { answerSettings } from "./settings";

const AFTER = 400; // ms without a change
const CHARACTERS_PER_TOKEN = 3.5; // until the server has counted

export const meter: Signal<{ used: number; limit: number; exact: boolean } | null> = signal(null);

let timer: ReturnType<typeof setTimeout> | undefined;
let counting: AbortController | undefined;
let counted: { characters: number; tokens: number } | undefined;

/** Estimates at once, and counts when the draft has not changed for a moment. */
export function measure(draft: { text: string; attachments: readonly Attachment[] }): void {
  clearTimeout(timer);
  counting?.abort();
  const limit = status.peek()?.contextLength;
  if (limit === undefined) {
    meter.value = null;
    return;
  }
  const request = requestWith(draft);
  const characters = request.turns.reduce((sum, turn) => sum + turn.text.length, request.settings.system?.length ?? 0);
  meter.value = { used: estimate(characters), limit, exact: false };
  if (request.turns.length > 0) timer = setTimeout(() => void count(request, characters, limit), AFTER);
}

async function count(request: AnswerRequest, characters: number, limit: number): Promise<void> {
  if (reach.peek() !== "ok" || document.visibilityState === "hidden") return;
  const mine = new AbortController();
  counting = mine;
  try {
    const tokens = await countTokens(request, mine.signal);
    if (counting !== mine || mine.signal.aborted) return;
    counted = { characters, tokens };
    meter.value = { used: tokens, limit, exact: true };
  } catch {
    // the estimate stays; a fault of the server shows elsewhere
  }
}

function estimate(characters: number): number {
  const known = counted ?? { characters: 0, tokens: 0 };
  return Math.max(0, Math.round(known.tokens + (characters - known.characters) / CHARACTERS_PER_TOKEN));
}

function requestWith({ text, attachments }: { text: string; attachments: readonly Attachment[] }): AnswerRequest {
  const turns = path(current.peek()).map((message) => ({
    role: message.role,
    text: withAttachments(message.text, message.attachments ?? []),
  }));
  const draft = withAttachments(text, attachments);
  return { turns: draft === "" ? turns : [...turns, { role: "user", text: draft }], settings: answerSettings() };
}
