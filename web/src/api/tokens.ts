/** Counts the tokens that a request's prompt would have, with the server's own template. */
import { promptBody } from "./body";
import { request as send } from "./client";
import { asObject, asOptionalNumber } from "./json";
import type { AnswerRequest } from "./types";

/** Throws ServerFault. */
export async function countTokens(request: AnswerRequest, signal?: AbortSignal): Promise<number> {
  const response = await send("v1/responses/input_tokens", { json: promptBody(request), ...(signal ? { signal } : {}) });
  return asOptionalNumber(asObject(await response.json())["input_tokens"]) ?? 0;
}
