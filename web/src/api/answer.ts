/**
 * Has the server answer, as a background response: it goes on without the page, which can attach to it again.
 *
 * A server that stores no responses is asked over /v1/chat/completions; such an answer ends with its connection.
 */
import { responseBody } from "./body";
import { chatEvents } from "./chat";
import { request as send } from "./client";
import { answerEvent, cutOff } from "./events";
import { ServerFault } from "./fault";
import { events } from "./sse";
import type { AnswerEvent, AnswerRequest } from "./types";

/** What happens to a new answer. `heard` is called whenever bytes arrive. Throws ServerFault. */
export async function* startAnswer(
  request: AnswerRequest,
  signal: AbortSignal,
  heard?: () => void,
): AsyncGenerator<AnswerEvent, void> {
  let response: Response;
  try {
    response = await send("v1/responses", { json: responseBody(request), signal });
  } catch (error) {
    if (!storesNothing(error)) throw error;
    for await (const { index: _, ...event } of chatEvents(request, 1, signal, heard)) yield event as AnswerEvent;
    return;
  }
  yield* answerEvents(response, heard);
}

/** What happens to an answer after event number `startingAfter` (-1: from its beginning). Throws ServerFault; 404: it is gone. */
export async function* attachAnswer(
  responseId: string,
  startingAfter: number,
  signal: AbortSignal,
  heard?: () => void,
): AsyncGenerator<AnswerEvent, void> {
  const after = startingAfter >= 0 ? `&starting_after=${startingAfter}` : "";
  const response = await send(`${pathOf(responseId)}?stream=true${after}`, { signal });
  for await (const event of answerEvents(response, heard)) {
    if (event.number === undefined || event.number > startingAfter) yield event;
  }
}

/** Ends an answer at once; one that is over already is left as it is. */
export async function cancelAnswer(responseId: string): Promise<void> {
  await unlessGone(send(`${pathOf(responseId)}/cancel`, { method: "POST", keepalive: true }));
}

/** Has the server forget an answer that is stored here. */
export async function forgetAnswer(responseId: string): Promise<void> {
  await unlessGone(send(pathOf(responseId), { method: "DELETE", keepalive: true }));
}

async function* answerEvents(response: Response, heard?: () => void): AsyncGenerator<AnswerEvent, void> {
  for await (const event of events(response, heard)) {
    const found = answerEvent(event);
    if (found) yield found;
    if (found?.type === "ended") return;
  }
  throw cutOff();
}

function storesNothing(error: unknown): boolean {
  if (!(error instanceof ServerFault)) return false;
  const { fault, status } = error;
  if (status === 404) return fault.code === "unknown_url" || fault.code === undefined;
  return status === 400 && (fault.param === "background" || fault.param === "store");
}

async function unlessGone(sent: Promise<Response>): Promise<void> {
  try {
    await sent;
  } catch (error) {
    if (error instanceof ServerFault && (error.status === 404 || error.status === 400)) return;
    throw error;
  }
}

function pathOf(responseId: string): string {
  return `v1/responses/${encodeURIComponent(responseId)}`;
}
