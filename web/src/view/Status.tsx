/** One line about the server: how busy it is and what that means for the reader, or why it cannot answer now. */
import type { ServerStatus } from "../api/types";
import { pollNow, reach, status } from "../state/server";
import { words, type Words } from "../words";

export function Status() {
  const w = words.value;
  const line = describe(w, status.value, reach.value);
  if (!line) return <div class="status" />;
  return (
    <div class="status" data-tone={line.tone} role="group" aria-label={w.status.label}>
      <span>
        <span class="dot" />
        {line.parts.map((part, index) => (
          <span key={index}>
            {index ? " · " : ""}
            <span class="whole">{part}</span>
          </span>
        ))}
      </span>
      {line.progress === undefined ? null : <progress max={1} value={line.progress} aria-label={line.parts[0]} />}
      {line.retry ? (
        <button type="button" class="link" onClick={pollNow}>
          {w.status.tryNow}
        </button>
      ) : null}
    </div>
  );
}

interface Line {
  tone: "ok" | "warn" | "bad";
  parts: string[];
  progress?: number;
  retry?: boolean;
}

function describe(w: Words, now: ServerStatus | null, reached: typeof reach.value): Line | null {
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
