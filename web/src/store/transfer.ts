/** Conversations as files: JSON with a version, to be read back; Markdown; and one answer as a command that repeats it. */
import { chatBody } from "../api/body";
import { requestBelow } from "../state/asking";
import { withAttachments } from "../state/attachments";
import { effectiveSettings, path, titleOf, VERSION, type Conversation, type Id, type Message } from "../state/conversation";
import { baseUri } from "./place";
import { conversationsIn } from "./reading";

export { TransferFault } from "./reading";

export const FORMAT = "antiphon-conversations";

/** All that is in the conversations, with every branch. */
export function toJson(conversations: Conversation[]): string {
  return `${JSON.stringify({ format: FORMAT, version: VERSION, conversations: conversations.map(exported) }, null, 1)}\n`;
}

/** The conversations of such a file. Throws TransferFault, which says what is wrong with it. */
export function fromJson(text: string): Conversation[] {
  return conversationsIn(text, FORMAT, VERSION);
}

/** What is shown of a conversation, thoughts as quotations. */
export function toMarkdown(conversation: Conversation): string {
  const title = titleOf(conversation).replaceAll(/\s+/gu, " ");
  return [`# ${title || "Conversation"}`, ...path(conversation).map(markdownOf)].join("\n\n").concat("\n");
}

function markdownOf(message: Message): string {
  const thought = message.answer?.thought.trim();
  const text = withAttachments(message.text, message.attachments ?? []);
  const parts = [`## ${message.role === "user" ? "User" : "Assistant"}`];
  if (thought) parts.push(thought.replaceAll(/^/gmu, "> "));
  if (text) parts.push(text);
  return parts.join("\n\n");
}

/** The request of an answer, for a shell. */
export function toCurl(conversation: Conversation, messageId: Id): string {
  const body = JSON.stringify(bodyOf(conversation, messageId), null, 2);
  const url = new URL("v1/chat/completions", baseUri());
  return [
    `curl ${quoted(url.href)} \\`,
    `  -H 'Content-Type: application/json' \\`,
    `  -H "Authorization: Bearer $ANTIPHON_API_KEY" \\`,
    `  -d ${quoted(body)}`,
  ].join("\n");
}

/** The request of an answer, for OpenAI's Python client. */
export function toPython(conversation: Conversation, messageId: Id): string {
  const { messages, temperature, top_p, seed, max_completion_tokens, response_format, ...others } = bodyOf(conversation, messageId);
  const known = { temperature, top_p, seed, max_completion_tokens, response_format };
  const fields = Object.entries(known).filter(([, value]) => value !== undefined);
  const lines = [
    'model="",', // the served one
    `messages=${python(messages)},`,
    ...fields.map(([name, value]) => `${name}=${python(value)},`),
    ...(Object.keys(others).length > 0 ? [`extra_body=${python(others)},`] : []),
  ];
  return [
    "import os",
    "",
    "from openai import OpenAI",
    "",
    `client = OpenAI(base_url=${python(new URL("v1", baseUri()).href)}, api_key=os.environ.get("ANTIPHON_API_KEY", "none"))`,
    "answer = client.chat.completions.create(",
    ...lines.map((line) => `    ${line}`),
    ")",
    "print(answer.choices[0].message.content)",
    "",
  ].join("\n");
}

/** Without what only a page needs. */
function bodyOf(conversation: Conversation, messageId: Id): Record<string, unknown> {
  const message = conversation.messages[messageId];
  const settings = message?.answer ? effectiveSettings(message.answer) : {};
  const above = message?.role === "assistant" ? (message.parent ?? "") : messageId;
  const body = chatBody(requestBelow(conversation, above, settings));
  for (const name of ["stream", "stream_options", "return_progress"]) delete body[name];
  return body;
}

/** In single quotes, in which a shell reads everything as it is. */
function quoted(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

/** A literal of Python's; JSON's strings are strings of Python's too. */
function python(value: unknown): string {
  if (value === null || value === undefined) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (Array.isArray(value)) return `[${value.map(python).join(", ")}]`;
  if (typeof value === "object") {
    return `{${Object.entries(value).map(([key, each]) => `${JSON.stringify(key)}: ${python(each)}`).join(", ")}}`;
  }
  return JSON.stringify(value);
}

/** Without what belongs to this browser and this server. */
function exported(conversation: Conversation): Conversation {
  const { removed: _removed, headRevision: _revision, ...rest } = conversation;
  const messages = Object.entries(conversation.messages).map(([id, message]) => [id, unbound(message)] as const);
  return { ...rest, messages: Object.fromEntries(messages) };
}

function unbound(message: Message): Message {
  const { revision: _revision, ...rest } = message;
  if (!rest.answer) return rest;
  const { responseId: _id, lastEvent: _event, ...answer } = rest.answer;
  return { ...rest, answer: { ...answer, state: answer.state === "running" ? "broken" : answer.state } };
}
