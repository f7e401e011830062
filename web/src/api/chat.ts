/** Streams from /v1/chat/completions: where a server stores no responses, and for several answers at once. */
import { chatBody } from "./body";
import { request as send } from "./client";
import { cutOff, degradedOf, logprobsOf, progressOf, thoughtClosedOf, timingsOf, usageOf } from "./events";
import { faultOfEvent } from "./fault";
import { asList, asNumber, asObject, asText, parsed, type Json } from "./json";
import { events } from "./sse";
import type { AnswerEvent, AnswerRequest, FinishReason } from "./types";

export type IndexedEvent = AnswerEvent & { index: number };

/** What happens to `n` answers; "ended" comes for each of them, the rest of the stream before it. */
export async function* chatEvents(
  request: AnswerRequest,
  n: number,
  signal: AbortSignal,
  heard?: () => void,
): AsyncGenerator<IndexedEvent, void> {
  const response = await send("v1/chat/completions", { json: chatBody(request, n), signal });
  for (let index = 0; index < n; index++) yield { type: "accepted", index };
  const reasons = new Map<number, FinishReason>();
  let last: Json = {};
  for await (const { data } of events(response, heard)) {
    if (data === "[DONE]") {
      if (reasons.size < n) throw cutOff();
      yield* endings(reasons, last, n);
      return;
    }
    const chunk = parsed(data);
    if (chunk["error"]) throw faultOfEvent(chunk["error"], true);
    if (chunk["usage"] || chunk["timings"]) last = { ...last, ...withoutNull(chunk) };
    yield* progressEvents(chunk, n);
    for (const choice of asList(chunk["choices"])) yield* choiceEvents(asObject(choice), reasons);
  }
  throw cutOff();
}

function* choiceEvents(choice: Json, reasons: Map<number, FinishReason>): Generator<IndexedEvent, void> {
  const index = asNumber(choice["index"]);
  const delta = asObject(choice["delta"]);
  const logprobs = logprobsOf(asObject(choice["logprobs"])["content"]);
  const scored = logprobs.length > 0 ? { logprobs } : {};
  const thought = asText(delta["reasoning_content"]) || asText(delta["reasoning"]);
  const text = asText(delta["content"]);
  if (thought) yield { type: "thought", text: thought, index, ...(text ? {} : scored) };
  const why = thoughtClosedOf(choice["thought_closed"]);
  if (why) yield { type: "thoughtClosed", why, index };
  if (text || (!thought && logprobs.length > 0)) yield { type: "text", text, index, ...scored };
  if (typeof choice["finish_reason"] === "string") {
    reasons.set(index, choice["finish_reason"] === "length" ? "length" : "stop");
  }
}

/** Progress with the prompt is that of all answers. */
function* progressEvents(chunk: Json, n: number): Generator<IndexedEvent, void> {
  const progress = progressOf(chunk);
  if (!progress) return;
  for (let index = 0; index < n; index++) yield { ...progress, index };
}

/** Usage and timings are those of all answers together; one answer alone has them. */
function* endings(reasons: Map<number, FinishReason>, last: Json, n: number): Generator<IndexedEvent, void> {
  const usage = n === 1 ? usageOf(last["usage"]) : undefined;
  const timings = timingsOf(last["timings"]);
  const degraded = degradedOf(last["degraded"]);
  for (const [index, finishReason] of reasons) {
    yield {
      type: "ended",
      index,
      finishReason,
      ...(usage ? { usage } : {}),
      ...(timings ? { timings } : {}),
      ...(degraded ? { degraded } : {}),
    };
  }
}

function withoutNull(chunk: Json): Json {
  return Object.fromEntries(Object.entries(chunk).filter(([, value]) => value !== null));
}
