/** Asks one question several times at once; the answers share the reading of the prompt. */
import { chatEvents, type IndexedEvent } from "./chat";
import type { AnswerRequest } from "./types";

/** What happens to each of `n` answers, by its index. Ends with its connection. Throws ServerFault. */
export function startVote(
  request: AnswerRequest,
  n: number,
  signal: AbortSignal,
  heard?: () => void,
): AsyncIterable<IndexedEvent> {
  return chatEvents(request, n, signal, heard);
}
