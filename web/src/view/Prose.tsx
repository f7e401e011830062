/**
 * A text as Markdown. The code for it is as large as the rest of the page, so it is loaded after the page itself; a text that
 * is shown before that, or when it cannot be loaded, is shown as it is.
 */
import { signal } from "@preact/signals";
import type { ComponentType } from "preact";

type Props = { text: string; streaming: boolean };

const loaded = signal<ComponentType<Props> | null>(null);

export async function loadMarkdown(): Promise<void> {
  try {
    loaded.value = (await import("./Markdown")).Markdown;
  } catch {
    window.setTimeout(() => void loadMarkdown(), RETRY); // the server is away
  }
}

const RETRY = 5000; // milliseconds

export function Prose({ text, streaming }: Props) {
  const Markdown = loaded.value;
  return Markdown ? <Markdown text={text} streaming={streaming} /> : <div class="plain">{text}</div>;
}
