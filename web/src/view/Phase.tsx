/** The line below an answer that is being made: what happens now, for how long, how fast, and what the reader can do. */
import { answerNow, live, retryNow, type Live } from "../state/generation";
import { words, type Words } from "../words";
import { clock } from "../words/format";
import { Sign } from "./icons";
import { second } from "./ui";

export function phaseName(w: Words, now: Live): string {
  switch (now.phase) {
    case "waiting":
      return w.phase.waiting(now.position);
    case "reading":
      return w.phase.reading(now.reading?.processed, now.reading?.total);
    case "backoff":
      return now.fault ? w.fault[now.fault.kind] : w.phase.backoff;
    default:
      return w.phase[now.phase];
  }
}

export function Phase({ id }: { id: string }) {
  const w = words.value;
  const time = second.value;
  const now = live.value.get(id);
  if (!now) return null;
  const seconds = (time - now.phaseStartedAt) / 1000;
  return (
    <div class="phase">
      <Sign phase={now.phase} />
      <span>{phaseName(w, now)}</span>
      {now.phase === "reading" && now.reading ? (
        <progress max={now.reading.total} value={now.reading.processed} aria-label={w.phase.reading()} />
      ) : null}
      {now.phase === "backoff" ? (
        <Countdown id={id} until={now.retryAt} time={time} />
      ) : (
        <span class="dim">
          {clock(seconds)}
          {speed(w, now)}
        </span>
      )}
      {now.phase === "thinking" ? (
        <button type="button" class="button" onClick={() => answerNow(id)}>
          {w.thought.answerNow}
        </button>
      ) : null}
    </div>
  );
}

function speed(w: Words, now: Live): string {
  const writing = now.phase === "thinking" || now.phase === "answering";
  return writing && now.tokensPerSecond ? ` · ${w.phase.perSecond(now.tokensPerSecond)}` : "";
}

function Countdown({ id, until, time }: { id: string; until: number | undefined; time: number }) {
  const w = words.value;
  return (
    <>
      {until === undefined ? null : <span class="dim">{w.phase.tryAgainIn((until - time) / 1000)}</span>}
      <button type="button" class="button" onClick={() => retryNow(id)}>
        {w.phase.tryNow}
      </button>
    </>
  );
}
