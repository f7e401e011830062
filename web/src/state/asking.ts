/** What the server is asked for one answer: the messages above it, and what it has so far if it goes on. */
import type { AnswerRequest, AnswerSettings, Turn } from "../api/types";
import { withAttachments } from "./attachments";
import { pathTo, type Answer, type Conversation, type Id, type Message } from "./conversation";

/** The request for a new answer below `parent`. */
export function requestBelow(conversation: Conversation, parent: Id, settings: AnswerSettings): AnswerRequest {
  return { turns: pathTo(conversation, parent).map(turnOf), settings };
}

/**
 * The request that continues an answer where it ended, or repeats it where it has not begun.
 *
 * `closing` closes its thought. A grammar would begin anew in the middle of a text, so only an empty answer keeps it.
 */
export function requestToContinue(conversation: Conversation, message: Message, closing = false): AnswerRequest {
  const answer = message.answer as Answer;
  const turns = pathTo(conversation, message.parent ?? "").map(turnOf);
  if (message.text === "" && answer.thought === "") {
    return { turns, settings: closing ? { ...answer.settings, thinking: false } : answer.settings };
  }
  const { schema, thoughtBudget, ...rest } = answer.settings;
  const settings: AnswerSettings = rest;
  if (message.text === "" && schema !== undefined) settings.schema = schema;
  if (closing) settings.thoughtBudget = 0;
  else if (thoughtBudget !== undefined) settings.thoughtBudget = leftOf(thoughtBudget, answer);
  const last: Turn = { role: "assistant", text: message.text, thought: answer.thought };
  return { turns: [...turns, last], settings, continues: true };
}

function leftOf(budget: number, answer: Answer): number {
  return Math.max(0, budget - (answer.thoughtTokens ?? 0));
}

function turnOf(message: Message): Turn {
  return { role: message.role, text: withAttachments(message.text, message.attachments ?? []) };
}

/** Whether the answer's tokens were used up by its thought. */
export function ranOutOfTokens(message: Message): boolean {
  return message.answer?.state === "done" && message.answer.finishReason === "length" && message.text.trim() === "";
}

/** Whether a replay gave the same; an original that was cut short is the same if the new one begins with it. */
export function isSame(original: Message, again: Message): boolean {
  const whole = (message: Message): string => `${message.answer?.thought ?? ""}\u0000${message.text}`;
  if (original.answer?.state === "done") return whole(original) === whole(again);
  const cut = original.text === "" ? (original.answer?.thought ?? "") : whole(original);
  return whole(again).startsWith(cut);
}
