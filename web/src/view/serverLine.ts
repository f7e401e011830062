/** What the line about the server says: how busy it is and what that means for the reader, or why it cannot answer now. */
import type { ServerStatus } from "../api/types";
import type { Reach } from "../state/server";
import type { Words } from "../words";

export interface Line {
  tone: "ok" | "warn" | "bad";
  parts: string[];
  progress?: number;
  retry?: boolean;
}

/** Null if the server keeps that to itself. */
export function describe(w: Words, now: ServerStatus | null, reached: Reach): Line | null {
  if (reached === "unreachable") return { tone: "bad", parts: [w.status.unreachable], retry: true };
  if (reached === "unauthorized") return { tone: "warn", parts: [w.status.unauthorized] };
  if (reached === "closed") return null; // the server does not say
  if (!now) return { tone: "warn", parts: [w.status.unknown] };
  switch (now.state) {
    case "ready":
      return { tone: "ok", parts: ready(w, now) };
    case "loading":
      return {
        tone: "warn",
        parts: [w.status.loading(now.loading)],
        ...(now.loading === undefined ? {} : { progress: now.loading }),
      };
    case "failed":
    case "stopped":
      return { tone: "bad", parts: [w.status[now.state]] };
    default:
      return { tone: "warn", parts: [w.status[now.state]] };
  }
}

function ready(w: Words, now: ServerStatus): string[] {
  const busy = now.running + now.waiting;
  const mine = now.tokensPerSecondForYou;
  return [
    busy ? w.status.busy(now.running, now.waiting) : w.status.free,
    ...(mine ? [w.status.forYou(mine), w.status.thousand(1000 / mine)] : []),
  ];
}
