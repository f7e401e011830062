/** What a reader can do with answers: have one made, stop it, go on with it, ask again. */
import type { AnswerRequest, AnswerSettings } from "../api/types";
import { attachAll as attach, ask as askOwner, brokenOff } from "./claims";
import { isSame, requestBelow, requestToContinue } from "./asking";
import { effectiveSettings, path, pathTo, withChange, withChosen, withMessage, without } from "./conversation";
import type { Answer, AnswerState, Attachment, Id, Message } from "./conversation";
import * as documents from "./documents";
import { cancel, follow, release, stop as stopRun, wake } from "./follow";
import { newId, now, randomSeed } from "./ids";
import { change, current } from "./conversations";
import { Run } from "./run";
import { answerSettings } from "./settings";
import { runs } from "./streams";
import { followVote } from "./voting";

export { live, type Live, type Phase } from "./live";

/** Sends a message after those that are shown, and has it answered. Empty ones are not sent. */
export function send(text: string, attachments: Attachment[] = []): void {
  if (text.trim() === "" && attachments.length === 0) return;
  const parent = addUser(path(current.peek()).at(-1)?.id ?? null, text, attachments);
  answer(parent, { ...answerSettings() });
}

/** Sends a changed message beside the old one. */
export function editAndSend(messageId: Id, text: string, attachments: Attachment[] = []): void {
  const message = current.peek().messages[messageId];
  if (!message || (text.trim() === "" && attachments.length === 0)) return;
  answer(addUser(message.parent, text, attachments), { ...answerSettings() });
}

/** Another answer beside this one, with another seed unless the user set one; below a user's message: an answer to it. */
export function regenerate(messageId: Id): void {
  const message = current.peek().messages[messageId];
  const parent = message?.role === "user" ? message.id : message?.parent;
  if (parent) answer(parent, { ...answerSettings() });
}

/** Goes on with an answer that was stopped, broke or reached its limit: attached to again where the server still has it. */
export function continueAnswer(messageId: Id): void {
  const message = current.peek().messages[messageId];
  if (!message?.answer || runs.get(messageId)?.isOver === false) return;
  void goOn(current.peek().id, message);
}

/** Closes the thought, and goes on with the answer. */
export function answerNow(messageId: Id): void {
  const run = runs.get(messageId);
  if (!run?.isAccepted || run.isOver || run.text.all !== "") return;
  const { responseId, conversation } = run;
  run.handOver();
  wake(run);
  if (responseId !== undefined) void cancel(responseId);
  const message = reopened(conversation, messageId, { thoughtClosed: "request" }, false);
  const all = documents.documentOf(conversation);
  if (message && all) start(conversation, message, requestToContinue(all, message, true));
}

/** Stops it at once, wherever it runs. */
export function stop(messageId: Id): void {
  const run = runs.get(messageId);
  if (run) stopRun(run);
  else askOwner({ type: "stop", message: messageId });
}

/** Tries again now what waits for its time. */
export function retryNow(messageId: Id): void {
  const run = runs.get(messageId);
  if (run) wake(run);
  else if (current.peek().messages[messageId]?.answer?.state === "broken") continueAnswer(messageId);
}

/** Removes a message and what is below it; answers that run there end. */
export function removeMessage(id: Id): void {
  for (const run of runs.values()) {
    if (pathTo(current.peek(), run.id).some((above) => above.id === id)) stopRun(run);
  }
  change((conversation) => without(conversation, id));
}

/** Asks `n` times at once; the answers are siblings of one vote. */
export function vote(text: string, attachments: Attachment[], n: number): void {
  const parent = addUser(path(current.peek()).at(-1)?.id ?? null, text, attachments);
  const settings = seeded(answerSettings());
  const request = requestBelow(current.peek(), parent, settings);
  const id = newId();
  const all = Array.from({ length: n }, (_, index) => {
    const message = addAnswer(parent, settings, { vote: { id, index, of: n } });
    return new Run(current.peek().id, message, request);
  });
  const first = all[0];
  if (!first) return;
  change((conversation) => withChosen(conversation, first.id));
  for (const run of all) void keep(run);
  void followVote(all);
}

/**
 * The same question with the same settings and seed once more, as a sibling that is shown when it is complete.
 *
 * Rejects if it does not end by itself.
 */
export async function replay(messageId: Id): Promise<"same" | "different"> {
  const shown = current.peek();
  const original = shown.messages[messageId];
  if (!original?.answer || !original.parent) throw new Error("There is no such answer.");
  const settings = effectiveSettings(original.answer);
  const request = requestBelow(shown, original.parent, settings);
  const message = addAnswer(original.parent, settings);
  change((conversation) => withChosen(conversation, messageId));
  const state = await start(shown.id, message, request);
  const again = documents.documentOf(shown.id)?.messages[message.id];
  if (state !== "done" || !again) throw new Error("The answer did not end.");
  documents.changeIn(shown.id, (conversation) => withChosen(conversation, message.id));
  return isSame(original, again) ? "same" : "different";
}

/** Starts what the page needs, and attaches to the answers that no other tab runs. Once, at the start. */
export function attachAll(): Promise<void> {
  return attach(resume);
}

function addUser(parent: Id | null, text: string, attachments: Attachment[]): Id {
  const message: Message = { id: newId(), parent, role: "user", createdAt: now(), text };
  if (attachments.length > 0) message.attachments = attachments;
  change((conversation) => withMessage(conversation, message));
  return message.id;
}

function addAnswer(parent: Id, settings: AnswerSettings, more: Pick<Answer, "vote"> = {}): Message {
  const begun: Answer = { state: "running", thought: "", settings, ...more };
  const message: Message = { id: newId(), parent, role: "assistant", createdAt: now(), text: "", answer: begun };
  change((conversation) => withMessage(conversation, message));
  return message;
}

function answer(parent: Id, settings: AnswerSettings): void {
  const whole = seeded(settings);
  const message = addAnswer(parent, whole);
  const conversation = current.peek();
  void start(conversation.id, message, requestBelow(conversation, parent, whole));
}

function seeded(settings: AnswerSettings): AnswerSettings {
  return { ...settings, seed: settings.seed ?? randomSeed() };
}

async function start(conversation: Id, message: Message, request: AnswerRequest): Promise<AnswerState | "handed over"> {
  const run = new Run(conversation, message, request);
  const ends = keep(run);
  void follow(run);
  return ends;
}

/** Stores an answer each second while it runs, and when it ends. */
async function keep(run: Run): Promise<AnswerState | "handed over"> {
  runs.set(run.id, run);
  const saving = setInterval(() => run.store(), 1000);
  void documents.flush();
  const outcome = await run.outcome;
  clearInterval(saving);
  if (runs.get(run.id) === run) runs.delete(run.id);
  if (outcome === "broken" && run.responseId !== undefined) brokenOff.set(run.id, run.conversation);
  if (outcome === "done") void release(run);
  else void documents.flush();
  return outcome;
}

/** Attaches to it again, or goes on with it by a new request where the server does not have it any more. */
async function goOn(conversation: Id, message: Message): Promise<void> {
  const wasAttached = message.answer?.responseId !== undefined;
  await resume(conversation, message);
  const after = documents.documentOf(conversation)?.messages[message.id];
  const isGone = after?.answer?.state === "broken" && after.answer.responseId === undefined;
  if (wasAttached && isGone) await resume(conversation, after);
}

async function resume(conversation: Id, message: Message): Promise<void> {
  const isNew = message.answer?.responseId === undefined;
  const open = reopened(conversation, message.id, isNew ? { continued: true } : {}, !isNew);
  const all = documents.documentOf(conversation);
  if (open && all) await start(conversation, open, requestToContinue(all, open));
}

/** The message, running again; `attached`: as the response that it was. */
function reopened(conversation: Id, id: Id, more: Partial<Answer>, attached: boolean): Message | undefined {
  documents.changeIn(conversation, (all) =>
    withChange(all, id, (message) => {
      const { fault: _fault, finishReason: _reason, responseId, lastEvent, ...rest } = message.answer as Answer;
      const response = attached && responseId !== undefined ? { responseId, lastEvent: lastEvent ?? -1 } : {};
      return { ...message, answer: { ...rest, ...response, ...more, state: "running" } };
    }),
  );
  return documents.documentOf(conversation)?.messages[id];
}
