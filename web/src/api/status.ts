/** What the server says of itself: GET /v1/status. */
import { request as send } from "./client";
import { asNumber, asObject, asOptionalNumber, asText, type Json } from "./json";
import type { ServerStatus } from "./types";

const STATES: readonly string[] = ["loading", "ready", "restarting", "draining", "failed", "stopped"];

/** Throws ServerFault: with status 404 where the operator closed the route. */
export async function fetchStatus(signal?: AbortSignal): Promise<ServerStatus> {
  const response = await send("v1/status", signal ? { signal } : {});
  return statusOf(asObject(await response.json()));
}

export function statusOf(data: Json): ServerStatus {
  const state = asText(data["state"]);
  const advice = asObject(data["advice"] ?? data["default_sampling"]);
  const optional = {
    loading: asOptionalNumber(data["loading"] ?? data["progress"]),
    contextLength: asOptionalNumber(data["context_length"]),
    kvUsed: asOptionalNumber(data["kv_used"]),
    tokensPerSecond: asOptionalNumber(data["tokens_per_second"]),
    tokensPerSecondForYou: asOptionalNumber(data["tokens_per_second_for_you"]),
    thinks: typeof data["thinks"] === "boolean" ? data["thinks"] : undefined,
  };
  return {
    state: STATES.includes(state) ? (state as ServerStatus["state"]) : "ready",
    model: asText(data["model"]),
    version: asText(data["version"]),
    running: asNumber(data["running"]),
    waiting: asNumber(data["waiting"]),
    ...(Object.fromEntries(Object.entries(optional).filter(([, value]) => value !== undefined)) as Partial<ServerStatus>),
    ...adviceOf(advice),
  };
}

function adviceOf(data: Json): Pick<ServerStatus, "advice"> {
  const temperature = asOptionalNumber(data["temperature"]);
  const topP = asOptionalNumber(data["top_p"]);
  if (temperature === undefined && topP === undefined) return {};
  return { advice: { ...(temperature === undefined ? {} : { temperature }), ...(topP === undefined ? {} : { topP }) } };
}
