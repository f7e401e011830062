/** Turns the events of /v1/responses into AnswerEvents. */
import { faultOfEvent, ServerFault } from "./fault";
import { asList, asNumber, asObject, asOptionalNumber, asText, parsed, type Json } from "./json";
import type { ServerEvent } from "./sse";
import type { AnswerEvent, Degraded, FinishReason, ThoughtClosed, Timings, TokenLogprob, Usage } from "./types";

/**
 * The AnswerEvent of one server-sent event; undefined for those that say nothing new.
 *
 * Throws ServerFault if the event says that the answer failed.
 */
export function answerEvent(event: ServerEvent): AnswerEvent | undefined {
  const data = parsed(event.data);
  const found = read(asText(data["type"]) || (event.event ?? ""), data);
  const number = asOptionalNumber(data["sequence_number"]);
  return found && number !== undefined ? { ...found, number } : found;
}

function read(type: string, data: Json): AnswerEvent | undefined {
  const logprobs = logprobsOf(data["logprobs"]);
  const tokens = asOptionalNumber(data["num_tokens"]);
  const counted = { ...(logprobs.length > 0 ? { logprobs } : {}), ...(tokens === undefined ? {} : { tokens }) };
  switch (type) {
    case "response.created":
      return { type: "accepted", responseId: asText(asObject(data["response"])["id"]) };
    case "response.progress":
      return progressOf(data);
    case "response.reasoning_text.delta":
      return { type: "thought", text: asText(data["delta"]), ...counted };
    case "response.output_text.delta":
      return { type: "text", text: asText(data["delta"]), ...counted };
    case "response.reasoning_text.done":
    case "response.output_item.done":
      return closedOf(type.endsWith("item.done") ? asObject(data["item"]) : data);
    case "response.completed":
    case "response.incomplete":
    case "response.cancelled":
      return ended(asObject(data["response"]));
    case "response.failed":
      throw faultOfEvent(asObject(data["response"])["error"], true);
    case "error":
      throw faultOfEvent(data["error"] ?? data, false);
    default:
      if (data["error"]) throw faultOfEvent(data["error"], false);
      return undefined;
  }
}

/** `queue` or `prompt_progress`, as chunks of chat have them too. */
export function progressOf(data: Json): AnswerEvent | undefined {
  const queue = data["queue"];
  if (queue !== undefined && queue !== null) return { type: "queued", position: asNumber(asObject(queue)["position"]) };
  if (data["prompt_progress"] === undefined || data["prompt_progress"] === null) return undefined;
  const progress = asObject(data["prompt_progress"]);
  return {
    type: "reading",
    processed: asNumber(progress["processed"]),
    total: asNumber(progress["total"]),
    cached: asNumber(progress["cache"]),
  };
}

function closedOf(data: Json): AnswerEvent | undefined {
  const why = thoughtClosedOf(data["thought_closed"]);
  return why && { type: "thoughtClosed", why };
}

function ended(response: Json): AnswerEvent {
  const usage = usageOf(response["usage"]);
  const timings = timingsOf(response["timings"]);
  const why = thoughtClosedOf(response["thought_closed"]);
  const degraded = degradedOf(response["degraded"]);
  return {
    type: "ended",
    finishReason: finishOf(response),
    ...(usage ? { usage } : {}),
    ...(timings ? { timings } : {}),
    ...(why ? { thoughtClosed: why } : {}),
    ...(degraded ? { degraded } : {}),
  };
}

function finishOf(response: Json): FinishReason {
  if (response["status"] === "cancelled") return "cancelled";
  if (response["status"] !== "incomplete") return "stop";
  return "length";
}

export function thoughtClosedOf(why: unknown): ThoughtClosed | undefined {
  if (why === "loop" || why === "repetition") return "repetition";
  return why === "budget" || why === "request" ? why : undefined;
}

/** Tokens, under the names of /v1/responses or of chat. */
export function usageOf(value: unknown): Usage | undefined {
  if (typeof value !== "object" || value === null) return undefined;
  const usage = asObject(value);
  const input = asObject(usage["input_tokens_details"] ?? usage["prompt_tokens_details"]);
  const output = asObject(usage["output_tokens_details"] ?? usage["completion_tokens_details"]);
  return {
    promptTokens: asNumber(usage["input_tokens"] ?? usage["prompt_tokens"]),
    cachedTokens: asNumber(input["cached_tokens"]),
    completionTokens: asNumber(usage["output_tokens"] ?? usage["completion_tokens"]),
    thoughtTokens: asNumber(output["reasoning_tokens"]),
  };
}

/** The limits that the server lowered, as the API names them. */
export function degradedOf(value: unknown): Degraded | undefined {
  if (typeof value !== "object" || value === null) return undefined;
  const said = asObject(value);
  const limits = {
    maxTokens: asOptionalNumber(said["max_tokens"]),
    thoughtBudget: asOptionalNumber(said["thinking_token_budget"]),
    temperature: asOptionalNumber(said["temperature"]),
  };
  return Object.fromEntries(Object.entries(limits).filter(([, limit]) => limit !== undefined));
}

export function timingsOf(value: unknown): Timings | undefined {
  if (typeof value !== "object" || value === null) return undefined;
  const timings = asObject(value);
  return {
    queueMs: asNumber(timings["queue_ms"]),
    promptMs: asNumber(timings["prompt_ms"]),
    promptPerSecond: asNumber(timings["prompt_per_second"]),
    predictedMs: asNumber(timings["predicted_ms"]),
    predictedPerSecond: asNumber(timings["predicted_per_second"]),
  };
}

export function logprobsOf(value: unknown): TokenLogprob[] {
  return asList(value).map((entry) => {
    const scored = asObject(entry);
    const rivals = asList(scored["top_logprobs"]).map((rival) => oneOf(asObject(rival)));
    return { ...oneOf(scored), rivals };
  });
}

function oneOf(entry: Json): { token: string; logprob: number } {
  return { token: asText(entry["token"]), logprob: asNumber(entry["logprob"]) };
}

/** What a stream that ends before its answer means. */
export function cutOff(): ServerFault {
  return new ServerFault({ kind: "unreachable", message: "The connection ended before the answer did." });
}
