/** Why an answer is not whole, in words; and what is wrong with a request or the server. */
import type { Fault } from "../api/types";
import type { Answer } from "../state/conversation";
import type { Words } from "../words";

export function faultInWords(w: Words, fault: Fault): string {
  const { kind, room } = fault;
  return kind === "context" && room ? w.fault.room(room.used, room.limit) : w.fault[kind];
}

/** Null for an answer that is whole, or still being made. */
export function explanation(w: Words, text: string, answer: Answer): string | null {
  if (answer.fault) return faultInWords(w, answer.fault);
  if (answer.state === "stopped") return w.ending.stopped;
  if (answer.state === "broken") return w.ending.broken;
  if (answer.state === "running") return null; // another tab writes it, or it is about to be attached to
  const count = answer.usage?.completionTokens;
  if (answer.finishReason === "length") {
    return text === "" && answer.thought !== "" && count ? w.ending.spent(count) : w.ending.length(count);
  }
  return text === "" ? w.ending.empty : null;
}
