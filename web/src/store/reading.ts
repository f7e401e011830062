/**
 * Reads a file of conversations as data: every field is checked and copied by name, and sizes are bounded.
 *
 * Nothing of a file is trusted: not its ids (they are made anew, so that it cannot replace what is there), nor its tree.
 */
import { asList, asObject, asOptionalNumber, asText, type Json } from "../api/json";
import type { AnswerSettings, FinishReason, ThoughtClosed, TokenLogprob } from "../api/types";
import { VERSION, type Answer, type AnswerState, type Attachment, type Conversation, type Id, type Message } from "../state/conversation";
import { newId } from "../state/ids";
import { treeOf } from "../state/merge";

export const MAX_CHARACTERS = 200_000_000;
const MAX_CONVERSATIONS = 10_000;
const MAX_MESSAGES = 50_000; // of one conversation

export class TransferFault extends Error {
  override readonly name = "TransferFault";
  readonly kind: "large" | "json" | "format" | "version" | "message";

  /** `message` is English, for the log; `kind` is what the page puts into words. */
  constructor(kind: TransferFault["kind"], message: string) {
    super(message);
    this.kind = kind;
  }
}

export function conversationsIn(text: string, format: string, version: number): Conversation[] {
  if (text.length > MAX_CHARACTERS) throw new TransferFault("large", "The file is too large.");
  const file = asObject(json(text));
  if (file["format"] !== format) throw new TransferFault("format", "This is no file of conversations of this page.");
  const found = asOptionalNumber(file["version"]);
  if (found === undefined || found > version || found < 1) {
    throw new TransferFault("version", `The file has version ${String(file["version"])}; this page reads up to ${version}.`);
  }
  const all = asList(file["conversations"]);
  if (all.length > MAX_CONVERSATIONS) throw new TransferFault("large", `The file has ${all.length} conversations.`);
  return all.map((each, index) => conversationOf(asObject(each), index));
}

function json(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new TransferFault("json", `The file is not JSON: ${error instanceof Error ? error.message : ""}`);
  }
}

function conversationOf(data: Json, index: number): Conversation {
  const given = Object.entries(asObject(data["messages"]));
  if (given.length > MAX_MESSAGES) throw new TransferFault("large", `Conversation ${index + 1} has too many messages.`);
  const ids = new Map(given.map(([id]) => [id, newId()]));
  const messages = given.map(([id, message]) => messageOf(asObject(message), id, ids, index));
  const chosen = Object.entries(asObject(data["chosen"])).flatMap(([parent, child]): [Id, Id][] => {
    const [from, to] = [parent === "" ? "" : ids.get(parent), ids.get(asText(child))];
    return from === undefined || to === undefined ? [] : [[from, to]];
  });
  const now = Date.now();
  return {
    version: VERSION,
    id: newId(),
    title: asText(data["title"]).slice(0, 1000),
    pinned: data["pinned"] === true,
    createdAt: time(data["createdAt"], now),
    updatedAt: time(data["updatedAt"], now),
    ...treeOf(withoutCycles(messages), {}, Object.fromEntries(chosen)),
  };
}

function messageOf(data: Json, id: Id, ids: Map<Id, Id>, index: number): Message {
  const role = data["role"];
  if ((role !== "user" && role !== "assistant") || typeof data["text"] !== "string") {
    throw new TransferFault("message", `Conversation ${index + 1} has a message without a role or a text.`);
  }
  const attachments = asList(data["attachments"]).map(attachmentOf);
  return {
    id: ids.get(id) as Id,
    parent: ids.get(asText(data["parent"])) ?? null,
    role,
    createdAt: time(data["createdAt"], 0),
    text: data["text"],
    ...(attachments.length > 0 ? { attachments } : {}),
    ...(role === "assistant" ? { answer: answerOf(asObject(data["answer"])) } : {}),
  };
}

function attachmentOf(value: unknown): Attachment {
  const data = asObject(value);
  return { name: asText(data["name"]).slice(0, 1000), text: asText(data["text"]) };
}

const STATES: readonly unknown[] = ["done", "stopped", "broken"];
const REASONS: readonly unknown[] = ["stop", "length", "cancelled", "error"];
const CLOSINGS: readonly unknown[] = ["budget", "repetition", "request"];
const LIMITS = ["maxTokens", "thoughtBudget", "temperature"] as const;

function answerOf(data: Json): Answer {
  const logprobs = asList(data["logprobs"]).map(logprobOf);
  const usage = group(data["usage"], ["promptTokens", "cachedTokens", "completionTokens", "thoughtTokens"]);
  const timings = group(data["timings"], ["queueMs", "promptMs", "promptPerSecond", "predictedMs", "predictedPerSecond"]);
  return {
    state: STATES.includes(data["state"]) ? (data["state"] as AnswerState) : "broken",
    thought: asText(data["thought"]),
    settings: settingsOf(asObject(data["settings"])),
    ...(data["continued"] === true ? { continued: true } : {}),
    ...(REASONS.includes(data["finishReason"]) ? { finishReason: data["finishReason"] as FinishReason } : {}),
    ...(CLOSINGS.includes(data["thoughtClosed"]) ? { thoughtClosed: data["thoughtClosed"] as ThoughtClosed } : {}),
    ...(logprobs.length > 0 ? { logprobs } : {}),
    ...numbers(data, ["thoughtSeconds", "thoughtTokens"]),
    ...(usage ? { usage } : {}),
    ...(timings ? { timings } : {}),
    ...(data["degraded"] === undefined ? {} : { degraded: numbers(asObject(data["degraded"]), LIMITS) }),
  };
}

function settingsOf(data: Json): AnswerSettings {
  const schema = data["schema"];
  return {
    ...numbers(data, ["temperature", "topP", "maxTokens", "seed", "thoughtBudget", "logprobs"]),
    ...(typeof data["system"] === "string" ? { system: data["system"] } : {}),
    ...(typeof data["thinking"] === "boolean" ? { thinking: data["thinking"] } : {}),
    ...(typeof schema === "object" && schema !== null ? { schema } : {}),
  };
}

function logprobOf(value: unknown): TokenLogprob {
  const one = (data: Json): { token: string; logprob: number } => ({
    token: asText(data["token"]),
    logprob: asOptionalNumber(data["logprob"]) ?? 0,
  });
  const data = asObject(value);
  return { ...one(data), rivals: asList(data["rivals"]).map((rival) => one(asObject(rival))) };
}

/** Those of the named fields that are numbers. */
function numbers<K extends string>(data: Json, names: readonly K[]): { [name in K]?: number } {
  const found = names.map((name) => [name, asOptionalNumber(data[name])] as const);
  return Object.fromEntries(found.filter(([, value]) => value !== undefined)) as { [name in K]?: number };
}

/** An object all of whose fields are numbers; nothing if one is missing. */
function group<K extends string>(value: unknown, names: readonly K[]): Record<K, number> | undefined {
  const found = numbers(asObject(value), names);
  return names.every((name) => found[name] !== undefined) ? (found as Record<K, number>) : undefined;
}

function time(value: unknown, otherwise: number): number {
  const found = asOptionalNumber(value);
  return found !== undefined && found >= 0 && found < 8.64e15 ? found : otherwise;
}

/** A message that is above itself begins a conversation. */
function withoutCycles(messages: Message[]): Message[] {
  const parents = new Map(messages.map(({ id, parent }) => [id, parent]));
  const sound = new Set<Id>();
  return messages.map((message) => {
    const seen = new Set<Id>();
    let at: Id | null = message.id;
    while (at !== null && !sound.has(at) && !seen.has(at)) {
      seen.add(at);
      at = parents.get(at) ?? null;
    }
    const isCycle = at !== null && seen.has(at);
    if (isCycle) parents.set(message.id, null);
    else for (const id of seen) sound.add(id);
    return isCycle ? { ...message, parent: null } : message;
  });
}
