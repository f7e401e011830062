/**
 * A conversation as a tree of messages: an edit or another answer is a sibling, so nothing that was said is ever lost.
 *
 * Everything here is pure: each function returns a new conversation and shares what did not change. The stored form is the
 * form in memory, so a change of these types needs a new VERSION and a migration in `store/`.
 */
import type { AnswerSettings, Degraded, FinishReason, Fault, ThoughtClosed, Timings, TokenLogprob, Usage } from "../api/types";

export const VERSION = 1;

export type Id = string;

export interface Attachment {
  name: string;
  text: string;
}

/** What became of an answer. "broken": the connection or the server ended it; "lost": the page was closed meanwhile. */
export type AnswerState = "running" | "done" | "stopped" | "broken";

export interface Answer {
  state: AnswerState;
  thought: string;
  thoughtSeconds?: number;
  thoughtTokens?: number;
  thoughtClosed?: ThoughtClosed;
  finishReason?: FinishReason;
  usage?: Usage;
  timings?: Timings;
  /** What was asked for, to repeat it: the seed is always set. */
  settings: AnswerSettings;
  /** What a busy server lowered; it has to be asked for too. */
  degraded?: Degraded;
  /** Of the server's background response, to attach to it again. */
  responseId?: string;
  /** The number of the last event whose text is in `text` and `thought`. */
  lastEvent?: number;
  logprobs?: TokenLogprob[];
  fault?: Fault;
  /** With several paths of one vote: which vote it belongs to. */
  vote?: { id: Id; index: number; of: number };
  /** It was continued: its seed and settings alone do not repeat it. */
  continued?: boolean;
}

/** What repeats the answer: its settings, with the limits that the server lowered. */
export function effectiveSettings(answer: Answer): AnswerSettings {
  return { ...answer.settings, ...answer.degraded };
}

export interface Message {
  id: Id;
  parent: Id | null;
  role: "user" | "assistant";
  createdAt: number; // milliseconds since 1970
  text: string;
  attachments?: Attachment[];
  answer?: Answer; // with role "assistant"
  /** How often it was changed: of two copies, in two tabs, the higher one counts. */
  revision?: number;
}

export interface Conversation {
  version: typeof VERSION;
  id: Id;
  title: string; // empty: made of the first words
  pinned: boolean;
  createdAt: number;
  updatedAt: number;
  messages: Record<Id, Message>;
  /** The children of each message, and of the beginning (""), in the order in which they were made. */
  children: Record<Id | "", Id[]>;
  /** Which child is shown, by parent; the last one where nothing is chosen. */
  chosen: Record<Id | "", Id>;
  /** The messages that were removed, and their parents: another tab may still have them. */
  removed?: Record<Id, Id | null>;
  /** How often title and pin were changed. */
  headRevision?: number;
}

export function newConversation(id: Id, now: number): Conversation {
  return {
    version: VERSION,
    id,
    title: "",
    pinned: false,
    createdAt: now,
    updatedAt: now,
    messages: {},
    children: {},
    chosen: {},
  };
}

/** Adds a message below its parent and shows it. */
export function withMessage(conversation: Conversation, message: Message): Conversation {
  const key = message.parent ?? "";
  return {
    ...conversation,
    updatedAt: Math.max(conversation.updatedAt, message.createdAt),
    messages: { ...conversation.messages, [message.id]: message },
    children: { ...conversation.children, [key]: [...(conversation.children[key] ?? []), message.id] },
    chosen: { ...conversation.chosen, [key]: message.id },
  };
}

/** Replaces a message that is there; a conversation without it is returned as it is. */
export function withChange(conversation: Conversation, id: Id, change: (message: Message) => Message): Conversation {
  const message = conversation.messages[id];
  if (!message) return conversation;
  const changed = { ...change(message), revision: (message.revision ?? 0) + 1 };
  return { ...conversation, messages: { ...conversation.messages, [id]: changed } };
}

/** Gives it another title or pins it. */
export function withHead(
  conversation: Conversation,
  head: Partial<Pick<Conversation, "title" | "pinned">>,
): Conversation {
  return { ...conversation, ...head, headRevision: (conversation.headRevision ?? 0) + 1 };
}

/** Shows this sibling. */
export function withChosen(conversation: Conversation, id: Id): Conversation {
  const message = conversation.messages[id];
  if (!message) return conversation;
  return { ...conversation, chosen: { ...conversation.chosen, [message.parent ?? ""]: id } };
}

/** Removes a message and everything below it. */
export function without(conversation: Conversation, id: Id): Conversation {
  const message = conversation.messages[id];
  if (!message) return conversation;
  const gone = new Set(below(conversation, id));
  const kept = <T>(record: Record<string, T>): Record<string, T> =>
    Object.fromEntries(Object.entries(record).filter(([key]) => !gone.has(key)));
  const key = message.parent ?? "";
  const children = kept(conversation.children);
  children[key] = (children[key] ?? []).filter((child) => child !== id);
  const chosen = kept(conversation.chosen);
  if (chosen[key] === id) delete chosen[key];
  const parents = [...gone].map((each) => [each, conversation.messages[each]?.parent ?? null] as const);
  const removed = { ...conversation.removed, ...Object.fromEntries(parents) };
  return { ...conversation, messages: kept(conversation.messages), children, chosen, removed };
}

/** The messages that are shown, from the first to the last. */
export function path(conversation: Conversation): Message[] {
  const shown: Message[] = [];
  let key: Id | "" = "";
  for (;;) {
    const id: Id | undefined = conversation.chosen[key] ?? conversation.children[key]?.at(-1);
    const message = id === undefined ? undefined : conversation.messages[id];
    if (!message) return shown;
    shown.push(message);
    key = message.id;
  }
}

/** The messages above this one, from the first, and itself. */
export function pathTo(conversation: Conversation, id: Id): Message[] {
  const above: Message[] = [];
  let message = conversation.messages[id];
  while (message) {
    above.unshift(message);
    message = message.parent === null ? undefined : conversation.messages[message.parent];
  }
  return above;
}

/** A message and its alternatives, in the order in which they were made. */
export function siblings(conversation: Conversation, id: Id): Id[] {
  const message = conversation.messages[id];
  return message ? (conversation.children[message.parent ?? ""] ?? []) : [];
}

function below(conversation: Conversation, id: Id): Id[] {
  return [id, ...(conversation.children[id] ?? []).flatMap((child) => below(conversation, child))];
}

const TITLE_LENGTH = 60;

/** What a conversation is called: its own title, or the first words of its first message. */
export function titleOf(conversation: Conversation): string {
  if (conversation.title) return conversation.title;
  const first = path(conversation)[0];
  const words = (first?.text ?? "").replace(/\s+/gu, " ").trim();
  const characters = [...words];
  return characters.length <= TITLE_LENGTH ? words : `${characters.slice(0, TITLE_LENGTH - 1).join("")}…`;
}
