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
  const optional = {
    loading: asOptionalNumber(asObject(data["loading"])["fraction"]),
    contextLength: asOptionalNumber(data["context_length"]),
    kvUsed: asOptionalNumber(data["kv_cache_usage"]),
    tokensPerSecond: asOptionalNumber(data["tokens_per_second"]),
    tokensPerSecondForYou: asOptionalNumber(data["tokens_per_second_per_answer"]),
    thinks: typeof data["thinks"] === "boolean" ? data["thinks"] : undefined,
    advice: adviceOf(asObject(data["sampling"])),
  };
  return {
    state: STATES.includes(state) ? (state as ServerStatus["state"]) : "ready",
    model: asText(data["model"]),
    version: asText(data["version"]),
    running: asNumber(data["running"]),
    waiting: asNumber(data["waiting"]),
    ...(Object.fromEntries(Object.entries(optional).filter(([, value]) => value !== undefined)) as Partial<ServerStatus>),
  };
}

/** What the publisher recommends, as far as the page has a setting for it. */
function adviceOf(data: Json): ServerStatus["advice"] {
  const temperature = asOptionalNumber(data["temperature"]);
  const topP = asOptionalNumber(data["top_p"]);
  if (temperature === undefined && topP === undefined) return undefined;
  return { ...(temperature === undefined ? {} : { temperature }), ...(topP === undefined ? {} : { topP }) };
}
