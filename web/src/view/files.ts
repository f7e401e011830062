/** Text files that the reader drops, pastes or chooses become attachments of the draft. */
import type { Attachment } from "../state/conversation";
import { words } from "../words";
import { draft, setDraft } from "./drafts";
import { toast } from "./ui";

const LARGEST = 1 << 20; // bytes: more than any context holds

export async function attachFiles(files: Iterable<File>): Promise<void> {
  const read = await Promise.all([...files].map(readText));
  const attachments = read.filter((each) => each !== null);
  if (attachments.length) setDraft({ attachments: [...draft.peek().attachments, ...attachments] });
}

async function readText(file: File): Promise<Attachment | null> {
  const w = words.value.composer;
  if (file.size > LARGEST) {
    toast(w.tooLarge(file.name, "1 MB"));
    return null;
  }
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer());
    if (!text.includes("\0")) return { name: file.name, text };
  } catch {
    // Not UTF-8, or not readable.
  }
  toast(w.notText(file.name));
  return null;
}
