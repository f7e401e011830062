/**
 * Keeps an answer coming: opens its stream, attaches again after a break, waits where the server says so.
 *
 * A browser opens six connections to a server for all its tabs together, so an answer of a hidden tab, or one too many, is
 * not streamed: the server goes on, and the page looks in from time to time.
 */
import { attachAnswer, cancelAnswer, forgetAnswer, startAnswer } from "../api/answer";
import { apiKey } from "../api/client";
import { faultOfException } from "../api/fault";
import type { AnswerEvent } from "../api/types";

import * as documents from "./documents";
import { nextStep, type Step } from "./retry";
import type { Run } from "./run";
import { noteReach } from "./server";
import { announce, mayStream, streaming, untilLook } from "./streams";
import { Waiter } from "./waiter";

const SILENCE = 35_000; // ms without a byte: the server sends a comment every 10 s, so the connection is dead
const LOOK = 400; // ms that a look takes from its first byte: it has seen what there was
const NOTHING = 2000; // ms without a byte: there is nothing to see
const ACCEPTED_WITHIN = 10_000; // ms in which the server has to name an answer that was stopped

const waiters = new Map<Run, Waiter>();

/** Runs an answer to its end. */
export async function follow(run: Run): Promise<void> {
  streaming.add(run.id);
  announce();
  let failingSince: number | undefined;
  let attempt = 0;
  while (!run.isOver) {
    const before = run.lastEvent;
    const hadNews = run.hasNews;
    try {
      await connect(run);
      if (!run.isOver && !mayStream(run.id)) await pause(run, untilLook(run.id));
      failingSince = undefined;
      attempt = 0;
      continue;
    } catch (error) {
      if (run.isOver) break;
      if (run.lastEvent !== before || run.hasNews !== hadNews) failingSince = undefined;
      if (failingSince === undefined) attempt = 0;
      failingSince ??= Date.now();
      const fault = faultOfException(error);
      const situation = {
        isAttached: run.responseId !== undefined,
        hasText: run.hasText && run.hasNews,
        attempt,
        failingFor: Date.now() - failingSince,
      };
      const step = nextStep(fault, situation);
      if (fault.ended && step.type === "end") run.forget(); // there is nothing to attach to
      await take(run, step, fault.fault);
      attempt++;
    }
  }
  streaming.delete(run.id);
  announce();
}

async function take(run: Run, step: Step, fault: ReturnType<typeof faultOfException>["fault"]): Promise<void> {
  run.noteGap();
  if (step.type === "end") {
    if (step.isGone) run.forget();
    run.finish("broken", step.isGone ? { kind: "unreachable", message: "" } : fault);
  } else if (step.type === "key") {
    noteReach("unauthorized");
    run.enter("backoff", { fault });
    await pause(run, Infinity);
  } else if (step.type === "restart") {
    run.forget();
    run.enter("reconnecting", { fault });
    await pause(run, step.after);
  } else {
    run.enter(step.phase, { fault, retryAt: Date.now() + step.after });
    await pause(run, step.after);
  }
}

/** Reads one stream; returns at the answer's end, or when the stream was given up for now. */
async function connect(run: Run): Promise<void> {
  const connection = new AbortController();
  run.connection = connection;
  const openedAt = Date.now();
  let heardAt = openedAt;
  let enoughAt = openedAt + NOTHING;
  const heard = (): void => {
    if (heardAt === openedAt) enoughAt = Date.now() + LOOK;
    heardAt = Date.now();
  };
  const watch = setInterval(() => {
    if (run.responseId === undefined || run.isOver) return;
    const isDead = Date.now() - heardAt > SILENCE;
    if (isDead || (Date.now() > enoughAt && !mayStream(run.id))) connection.abort();
  }, 100);
  try {
    for await (const event of source(run, connection.signal, heard)) {
      if (run.isOver) {
        if (event.type === "accepted" && event.responseId !== undefined) void cancel(event.responseId);
        return;
      }
      if (!mayStream(run.id)) run.noteGap();
      if (run.apply(event)) return;
    }
  } catch (error) {
    if (!connection.signal.aborted) throw error;
  } finally {
    clearInterval(watch);
    run.connection = undefined;
  }
}

function source(run: Run, signal: AbortSignal, heard: () => void): AsyncIterable<AnswerEvent> {
  if (run.responseId === undefined) {
    run.enter("connecting");
    return startAnswer(run.request, signal, heard);
  }
  return attachAnswer(run.responseId, run.lastEvent, signal, heard);
}

/** Stops it: the text so far stays, and the server is told at once. */
export function stop(run: Run): void {
  const { responseId, connection } = run;
  run.finish("stopped");
  waiters.get(run)?.wake();
  if (run.isAccepted) {
    connection?.abort(); // which ends an answer that is not stored
    if (responseId !== undefined) void cancel(responseId);
  } else {
    setTimeout(() => connection?.abort(), ACCEPTED_WITHIN); // the server may have begun: its first event says what to cancel
  }
  void documents.flush();
}

/** Cancels at the server, and again if it cannot be reached. */
export async function cancel(responseId: string): Promise<void> {
  for (let attempt = 0; attempt < 5; attempt++) {
    try {
      await cancelAnswer(responseId);
      return;
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 500 * 2 ** attempt));
    }
  }
}

/** Has the server forget an answer, once it is stored here. */
export async function release(run: Run): Promise<void> {
  await documents.flush();
  if (run.responseId === undefined || documents.isUnsaved(run.conversation)) return;
  await forgetAnswer(run.responseId).catch(() => undefined); // it is forgotten in time anyway
}

/** Tries again now what waits. */
export function wake(run: Run): void {
  const waiter = waiters.get(run);
  if (waiter) waiter.wake();
  else if (run.responseId !== undefined) run.connection?.abort();
}

export function wakeAll(): void {
  for (const waiter of waiters.values()) waiter.wake();
}

apiKey.subscribe(wakeAll);

function pause(run: Run, ms: number): Promise<void> {
  return pauseAll([run], ms);
}

/** Waits; `wake` of any of them ends it. */
export async function pauseAll(all: readonly Run[], ms: number): Promise<void> {
  const waiter = new Waiter(ms);
  for (const run of all) waiters.set(run, waiter);
  await waiter.over;
  for (const run of all) waiters.delete(run);
}
