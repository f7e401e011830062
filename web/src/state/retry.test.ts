/** What follows a fault. */
import { expect, test } from "vitest";
import { ServerFault } from "../api/fault";
import type { Fault } from "../api/types";
import { nextStep, type Situation } from "./retry";

const NEW: Situation = { isAttached: false, hasText: false, attempt: 0, failingFor: 0 };
const ATTACHED: Situation = { ...NEW, isAttached: true };

function step(fault: Partial<Fault> & Pick<Fault, "kind">, situation: Partial<Situation> = {}, status?: number, ended = false) {
  return nextStep(new ServerFault({ message: "", ...fault }, status, ended), { ...NEW, ...situation });
}

test("the server's time is kept to, and told as a countdown", () => {
  expect(step({ kind: "rate", retryAfter: 7.5 })).toEqual({ type: "again", after: 7500, phase: "backoff" });
  expect(step({ kind: "overloaded", retryAfter: 3 })).toEqual({ type: "again", after: 3000, phase: "backoff" });
});

test("attempts are bounded, and a long wait is left to the reader", () => {
  expect(step({ kind: "overloaded", retryAfter: 1 }, { attempt: 8 })).toEqual({ type: "end" });
  expect(step({ kind: "rate", retryAfter: 3600 })).toEqual({ type: "end" });
  expect(step({ kind: "overloaded", final: true })).toEqual({ type: "end" });
});

test("a model that loads is waited for, but not for ever", () => {
  expect(step({ kind: "loading", retryAfter: 5 }, { attempt: 100, failingFor: 600_000 })).toMatchObject({ type: "again" });
  expect(step({ kind: "loading" }, { failingFor: 16 * 60_000 })).toEqual({ type: "end" });
});

test("without a time each wait is longer, up to 8 s", () => {
  const waits = Array.from({ length: 8 }, (_, attempt) => step({ kind: "unreachable" }, { attempt }));
  const after = waits.map((each) => ("after" in each ? each.after : Number.NaN));
  expect(after).toEqual([50, 500, 1000, 2000, 4000, 8000, 8000, 8000]);
});

test("a key is asked for at any time", () => {
  expect(step({ kind: "unauthorized" }, {}, 401)).toEqual({ type: "key" });
  expect(step({ kind: "unauthorized" }, ATTACHED, 401)).toEqual({ type: "key" });
});

test.each(["context", "refused", "failed"] as const)("%s is for the reader", (kind) => {
  expect(step({ kind })).toEqual({ type: "end" });
});

test("an answer at the server is attached to again, for a minute", () => {
  expect(step({ kind: "unreachable" }, { ...ATTACHED, hasText: true, attempt: 3 })).toEqual({ type: "again", after: 2000, phase: "reconnecting" });
  expect(step({ kind: "failed" }, ATTACHED, 500)).toMatchObject({ type: "again", phase: "reconnecting" });
  expect(step({ kind: "unreachable" }, { ...ATTACHED, failingFor: 61_000 })).toEqual({ type: "end" });
});

test("an answer that the server lost: asked for anew if nothing had come, else it stays broken", () => {
  expect(step({ kind: "refused" }, ATTACHED, 404)).toEqual({ type: "restart", after: 0 });
  expect(step({ kind: "refused" }, { ...ATTACHED, attempt: 3 }, 404)).toEqual({ type: "end", isGone: true });
  expect(step({ kind: "refused" }, { ...ATTACHED, hasText: true }, 404)).toEqual({ type: "end", isGone: true });
});

test("an answer that the server ended with an error is over; a server that stops had not begun", () => {
  expect(step({ kind: "failed" }, ATTACHED, undefined, true)).toEqual({ type: "end" });
  expect(step({ kind: "loading" }, { ...ATTACHED, hasText: true }, undefined, true)).toEqual({ type: "end" });
  expect(step({ kind: "loading" }, ATTACHED, undefined, true)).toMatchObject({ type: "restart" });
});

test("without a stored answer, what has come is never asked for again", () => {
  expect(step({ kind: "unreachable" }, { hasText: true })).toEqual({ type: "end" });
});
