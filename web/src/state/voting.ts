/** Runs the answers of one vote: one stream for all of them, which ends with its connection. */
import { faultOfException } from "../api/fault";
import { startVote } from "../api/vote";
import { nextStep } from "./retry";
import type { Run } from "./run";
import { noteReach } from "./server";
import { announce, streaming } from "./streams";
import { pauseAll } from "./follow";

/** Runs them to their ends; the request is the same for all. */
export async function followVote(all: Run[]): Promise<void> {
  const first = all[0];
  if (!first) return;
  streaming.add(first.id);
  announce();
  let attempt = 0;
  const since = Date.now();
  const isOver = (): boolean => all.every((run) => run.isOver);
  while (!isOver()) {
    try {
      await connect(first, all);
    } catch (error) {
      if (isOver()) break;
      const fault = faultOfException(error);
      const hasText = all.some((run) => run.hasText);
      const step = nextStep(fault, { isAttached: false, hasText, attempt, failingFor: Date.now() - since });
      attempt++;
      if (step.type === "end") for (const run of all) run.finish("broken", fault.fault);
      else {
        if (step.type === "key") noteReach("unauthorized");
        const after = step.type === "key" ? Infinity : step.after;
        const retryAt = Number.isFinite(after) ? { retryAt: Date.now() + after } : {};
        for (const run of all) run.enter("backoff", { fault: fault.fault, ...retryAt });
        await pauseAll(all, after);
      }
    }
  }
  streaming.delete(first.id);
  announce();
}

async function connect(first: Run, all: Run[]): Promise<void> {
  const connection = new AbortController();
  for (const run of all) run.enter("connecting");
  const watch = setInterval(() => all.every((run) => run.isOver) && connection.abort(), 100);
  try {
    for await (const { index, ...event } of startVote(first.request, all.length, connection.signal)) {
      const run = all[index];
      if (run && !run.isOver) run.apply(event);
    }
  } catch (error) {
    if (!connection.signal.aborted) throw error;
  } finally {
    clearInterval(watch);
  }
}
