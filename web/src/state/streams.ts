/**
 * Which answers may hold a stream open.
 *
 * A browser opens six connections to a server for all its tabs together, and one too many blocks everything, Stop too. So
 * tabs count together, in the order of their ids, and hidden tabs hold none for long.
 */
import type { Id } from "./conversation";
import type { Run } from "./run";
import { listen, streamsBefore, tell } from "../store/tabs";

const MAX_STREAMS = 4; // the rest is for questions, status and Stop
const HIDDEN_AFTER = 5000; // ms
const ANNOUNCE_EVERY = 5000;
const SLOT = 600; // ms: longer than a look
const SLOTS = { visible: 3, hidden: 6 };

/** The answers that this tab runs. */
export const runs = new Map<Id, Run>();

/** Those of them that want a stream: the answers of one vote share that of the first. */
export const streaming = new Set<Id>();

let hiddenSince: number | undefined;
let timer: ReturnType<typeof setInterval> | undefined;

/** Whether this answer may keep its stream; one that may not is looked at from time to time. */
export function mayStream(id: Id): boolean {
  if (hiddenSince !== undefined && Date.now() - hiddenSince > HIDDEN_AFTER) return false;
  return rankOf(id) < MAX_STREAMS;
}

/** Milliseconds until the next look: tabs share a clock, so they take turns. */
export function untilLook(id: Id, at = Date.now()): number {
  const period = SLOT * (isHidden() ? SLOTS.hidden : SLOTS.visible);
  const turn = (rankOf(id) * SLOT) % period;
  return (period + turn - (at % period)) % period || period;
}

/** How many streams come before this one. */
function rankOf(id: Id): number {
  return streamsBefore() + [...streaming].indexOf(id);
}

export function isHidden(): boolean {
  return document.visibilityState === "hidden";
}

/** The tab was shown or hidden. */
export function noteVisibility(): void {
  hiddenSince = isHidden() ? (hiddenSince ?? Date.now()) : undefined;
  announce();
}

/** Tells the other tabs how many streams this one wants. */
export function announce(): void {
  tell({ type: "here", streams: isHidden() ? 0 : streaming.size });
  if (streaming.size > 0) timer ??= setInterval(announce, ANNOUNCE_EVERY);
  else {
    clearInterval(timer);
    timer = undefined;
  }
}

/** Answers tabs that ask who is there; returns what ends that. */
export function answerTabs(): () => void {
  return listen((message) => message.type === "who" && announce());
}
