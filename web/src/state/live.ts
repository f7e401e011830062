/** The answers that this tab runs, as the views show them. */
import { signal, type Signal } from "@preact/signals";
import type { Fault } from "../api/types";
import type { Id } from "./conversation";

export type Phase =
  | "connecting"
  | "waiting" // in the server's queue
  | "reading" // the server reads the prompt
  | "thinking"
  | "answering"
  | "reconnecting"
  | "restarting" // the server's engine
  | "backoff"; // the server said when to try again, or needs a key

/** A new object in each phase; within a phase only `tokens` and `tokensPerSecond` change, in place. */
export interface Live {
  messageId: Id;
  phase: Phase;
  position?: number; // in the queue, from 1
  reading?: { processed: number; total: number; cached: number };
  startedAt: number;
  phaseStartedAt: number;
  tokens: number;
  tokensPerSecond?: number;
  retryAt?: number; // when it is tried again
  fault?: Fault; // why it has to be
  text: Signal<string>;
  thought: Signal<string>;
}

export const live: Signal<ReadonlyMap<Id, Live>> = signal(new Map());

export function showLive(entry: Live): void {
  live.value = new Map(live.peek()).set(entry.messageId, entry);
}

export function hideLive(messageId: Id): void {
  const rest = new Map(live.peek());
  if (rest.delete(messageId)) live.value = rest;
}
