/** What to do after a fault: try again (when), attach again, ask for a key, or leave it to the reader. Pure. */
import type { ServerFault } from "../api/fault";

export interface Situation {
  /** The server has the answer: it can be attached to. */
  isAttached: boolean;
  /** Something of it has come: asking anew would begin another text. */
  hasText: boolean;
  /** How often it was tried since something last came. */
  attempt: number;
  /** Since when it has been failing, in ms. */
  failingFor: number;
}

export type Step =
  | { type: "end"; isGone?: boolean } // the reader has to decide; gone: the server does not have it any more
  | { type: "key" } // wait for another key, then the same request
  | { type: "again"; after: number; phase: "backoff" | "reconnecting" } // ms
  | { type: "restart"; after: number }; // the server lost it before anything came: ask anew

const RECONNECT_FOR = 60_000;
const LOADING_FOR = 15 * 60_000;
const MAX_ATTEMPTS = 8;
const LONGEST_WAIT = 120; // seconds that the reader can be expected to watch a countdown

export function nextStep({ fault, status, ended }: ServerFault, situation: Situation): Step {
  const { isAttached, hasText, attempt, failingFor } = situation;
  if (fault.kind === "unauthorized") return { type: "key" };
  if (ended) {
    const stopped = fault.kind === "loading" && !hasText && attempt < MAX_ATTEMPTS; // the server went away
    return stopped ? { type: "restart", after: backoff(attempt) } : { type: "end" };
  }
  if (isAttached) {
    if (status === 404) return hasText || attempt > 2 ? { type: "end", isGone: true } : { type: "restart", after: 0 };
    if (failingFor > (fault.kind === "loading" ? LOADING_FOR : RECONNECT_FOR)) return { type: "end" };
    return { type: "again", after: Math.max(backoff(attempt), wait(fault.retryAfter, 10)), phase: "reconnecting" };
  }
  if (hasText || fault.final) return { type: "end" };
  switch (fault.kind) {
    case "loading":
      if (failingFor > LOADING_FOR) return { type: "end" };
      return { type: "again", after: Math.max(500, wait(fault.retryAfter ?? 2, 10)), phase: "backoff" };
    case "rate":
    case "overloaded":
      if (attempt >= MAX_ATTEMPTS || (fault.retryAfter ?? 0) > LONGEST_WAIT) return { type: "end" };
      return { type: "again", after: Math.max(250, wait(fault.retryAfter, Infinity) || backoff(attempt + 1)), phase: "backoff" };
    case "unreachable":
      if (failingFor > RECONNECT_FOR) return { type: "end" };
      return { type: "again", after: backoff(attempt), phase: "reconnecting" };
    default:
      return { type: "end" };
  }
}

/** At once, then 0.5 s, then twice as long each time, at most 8 s. */
function backoff(attempt: number): number {
  return attempt === 0 ? 50 : Math.min(8000, 250 * 2 ** attempt);
}

function wait(seconds: number | undefined, most: number): number {
  return 1000 * Math.min(seconds ?? 0, most);
}
