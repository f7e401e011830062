/** What the server says of itself, asked for by visible tabs only. */
import { signal, type Signal } from "@preact/signals";
import { apiKey, ServerFault } from "../api/client";
import { fetchStatus } from "../api/status";
import type { ServerStatus } from "../api/types";
import { live } from "./live";

export type Reach = "unknown" | "ok" | "closed" | "unauthorized" | "unreachable";

const SOON = 300; // ms after an answer has begun or ended
const BUSY = 2000; // ms between two questions
const CALM = 5000;
const IDLE = 15_000; // nobody touched the page for a while
const CLOSED = 60_000;
const IDLE_AFTER = 60_000;
const TIMEOUT = 15_000;

export const status: Signal<ServerStatus | null> = signal(null);

/** "closed": the operator closed the route; the server may well answer. */
export const reach: Signal<Reach> = signal("unknown");

let timer: ReturnType<typeof setTimeout> | undefined;
let asking: Promise<void> | undefined;
let isStarted = false;
let touchedAt = 0;

export function startPolling(): void {
  if (isStarted) return;
  isStarted = true;
  touched();
  document.addEventListener("visibilitychange", () => pollNow());
  for (const event of ["online", "focus"]) window.addEventListener(event, () => pollNow());
  for (const event of ["pointerdown", "keydown"]) window.addEventListener(event, touched, { passive: true });
  apiKey.subscribe(() => pollNow());
  let answers = live.peek().size;
  live.subscribe((now) => {
    if (now.size !== answers) pollSoon();
    answers = now.size;
  });
}

/** Asks now, unless the tab is hidden. */
export function pollNow(): void {
  clearTimeout(timer);
  if (!isVisible()) return;
  asking ??= poll().finally(() => {
    asking = undefined;
    clearTimeout(timer);
    if (isStarted && isVisible()) timer = setTimeout(pollNow, pause());
  });
}

function pollSoon(): void {
  clearTimeout(timer);
  timer = setTimeout(pollNow, SOON);
}

/** What an answer's request has found out, so that the key is asked for at once. */
export function noteReach(found: Reach): void {
  if (reach.peek() !== "closed" || found !== "ok") reach.value = found;
}

async function poll(): Promise<void> {
  try {
    status.value = await fetchStatus(AbortSignal.timeout(TIMEOUT));
    reach.value = "ok";
  } catch (error) {
    const fault = error instanceof ServerFault ? error : undefined;
    if (fault?.status === 404) reach.value = "closed";
    else if (fault?.fault.kind === "unauthorized") reach.value = "unauthorized";
    else if (fault === undefined || fault.fault.kind === "unreachable") reach.value = "unreachable";
    if (reach.peek() !== "ok") status.value = null;
  }
}

function pause(): number {
  if (reach.peek() === "closed") return CLOSED;
  const isBusy = live.peek().size > 0 || reach.peek() !== "ok" || status.peek()?.state !== "ready";
  if (isBusy) return BUSY;
  return Date.now() - touchedAt > IDLE_AFTER ? IDLE : CALM;
}

function touched(): void {
  const wasIdle = Date.now() - touchedAt > IDLE_AFTER;
  touchedAt = Date.now();
  if (wasIdle && isStarted) pollNow();
}

function isVisible(): boolean {
  return document.visibilityState !== "hidden";
}
