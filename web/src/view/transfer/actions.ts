/** What the transfer menu and dialog do: export, import, share. */
import { path, titleOf, type Conversation, type Message } from "../../state/conversation";
import { add, current, heads } from "../../state/conversations";
import { database } from "../../store/database";
import { fromJson, toJson, toMarkdown } from "../../store/transfer";
import { fileName, save } from "./files";

export type Format = "json" | "markdown";

const TYPES = { json: ["json", "application/json"], markdown: ["md", "text/markdown"] } as const;

export function isEmpty(): boolean {
  return path(current.value).length === 0;
}

async function everything(): Promise<Conversation[]> {
  const store = await database();
  const all = await Promise.all(heads.peek().map((head) => store.load(head.id)));
  return all
    .map((each) => (each?.id === current.peek().id ? current.peek() : each))
    .filter((each) => each !== undefined);
}

/** Saves one conversation, or all of them; returns the file's name. */
export async function exportAs(format: Format, scope: "this" | "all"): Promise<string> {
  const conversations = scope === "this" ? [current.peek()] : await everything();
  const text = format === "json" ? toJson(conversations) : conversations.map(toMarkdown).join("\n\n---\n\n");
  const [extension, type] = TYPES[format];
  const [only] = conversations;
  const name = fileName(scope === "this" && only ? titleOf(only) : "antiphon", new Date(), extension);
  save(text, name, type);
  return name;
}

export const MAX_FILE = 256 * 1024 * 1024; // bytes

export class TooLarge extends Error {}

/**
 * Reads an exported file and adds its conversations, under new ids. One that is there already, with the same messages, is
 * left out, so that importing a file twice does no harm.
 */
export async function importFile(file: Blob): Promise<{ added: number; known: number }> {
  if (file.size > MAX_FILE) throw new TooLarge();
  const conversations = fromJson(await file.text());
  const times = new Set(conversations.map((each) => each.updatedAt)); // few of those here have one of these
  const similar = await Promise.all(
    heads
      .peek()
      .filter((head) => times.has(head.updatedAt))
      .map(async (head) => (await database()).load(head.id)),
  );
  const here = new Set(similar.map((each) => each && contentOf(each)));
  const added = conversations.filter((each) => !here.has(contentOf(each)));
  await add(added);
  return { added: added.length, known: conversations.length - added.length };
}

/** What makes two conversations the same, whatever their ids are. */
function contentOf({ createdAt, messages }: Conversation): string {
  const said = Object.values(messages).map(({ role, createdAt: at, text }) => JSON.stringify([at, role, text]));
  return JSON.stringify([createdAt, ...said.toSorted()]);
}

/** Saves the shown messages as one HTML file; returns its name. */
export async function shareAsPage(): Promise<string> {
  const conversation = current.peek();
  const [{ shareFile }, { rendered }] = await Promise.all([import("../../store/share"), import("./rendered")]);
  const messages: Message[] = path(conversation);
  const blob = shareFile(conversation, await rendered(messages));
  const name = fileName(titleOf(conversation), new Date(), "html");
  save(blob, name, "text/html");
  return name;
}
