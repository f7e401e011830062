/** The forms in which conversations are stored: a head, and each message by itself, so that a save writes only what changed. */
import { titleOf, VERSION, type Attachment, type Conversation, type Id, type Message } from "../state/conversation";
import { merge, treeOf } from "../state/merge";

/** What the list of conversations shows of one. */
export interface Head {
  id: Id;
  title: string; // as shown: chosen, or the first words
  pinned: boolean;
  updatedAt: number;
}

export interface HeadRecord extends Omit<Conversation, "messages" | "children"> {
  shownTitle: string;
  removedAt?: number; // the user removed it, and may take that back
}

export interface MessageRecord extends Message {
  conversation: Id;
}

/** Which tab runs an answer. */
export interface Claim {
  message: Id;
  conversation: Id;
  tab: Id; // "" where the tab gave it up
}

export interface Draft {
  text: string;
  attachments: Attachment[];
}

export interface DraftRecord extends Draft {
  id: Id; // the conversation
  updatedAt: number;
}

export function headRecordOf(conversation: Conversation): HeadRecord {
  const { messages: _messages, children: _children, ...head } = conversation;
  return { ...head, shownTitle: titleOf(conversation) };
}

export function headOf(record: HeadRecord): Head {
  return { id: record.id, title: record.shownTitle, pinned: record.pinned, updatedAt: record.updatedAt };
}

/** The conversation of a head and its messages, whatever a crash or another tab left of them. */
export function conversationFrom(head: HeadRecord, records: MessageRecord[]): Conversation {
  const { shownTitle: _title, removedAt: _removedAt, ...rest } = head;
  const removed = head.removed ?? {};
  const messages = records.filter((record) => !(record.id in removed)).map(messageFrom);
  return { ...rest, version: VERSION, ...treeOf(messages, removed, head.chosen) };
}

export function messageFrom(record: MessageRecord): Message {
  const { conversation: _conversation, ...message } = record;
  return message;
}

/** The head after `mine` is saved over `stored`. */
export function mergedHead(mine: HeadRecord, stored: HeadRecord | undefined): HeadRecord {
  if (!stored) return mine;
  const empty = { messages: {}, children: {} };
  const { messages: _messages, children: _children, ...head } = merge({ ...mine, ...empty }, { ...stored, ...empty });
  return { ...mine, ...head, chosen: { ...stored.chosen, ...mine.chosen }, shownTitle: shown(head.title, mine, stored) };
}

function shown(title: string, mine: HeadRecord, stored: HeadRecord): string {
  return title || (mine.title ? stored.shownTitle : mine.shownTitle) || stored.shownTitle;
}
