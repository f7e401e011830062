/** What tests look at in a page: its answers, and when they are over. */
import type { Answer, Message } from "../state/conversation";
import type { Live } from "../state/live";
import { until, type Page } from "./browser";
import type { FakeServer } from "./server";

export type Answered = Message & { answer: Answer };

/** What the fake server answers. */
export const THOUGHT = "Let me see. ";
export const TEXT = "The answer is 42.";

export function lastAnswer({ conversations, conversation }: Page): Answered {
  return conversation.path(conversations.current.value).findLast(({ role }) => role === "assistant") as Answered;
}

export async function done(page: Page): Promise<Answered> {
  await until(() => page.generation.live.value.size === 0 && lastAnswer(page)?.answer.state !== "running", "the end");
  return lastAnswer(page);
}

/** The first of the answers that run. */
export function running(page: Page): Live | undefined {
  return page.generation.live.value.values().next().value;
}

/** Holds the server after so many events; returns what lets it go on. */
export function gate(server: FakeServer, events: number): () => void {
  let left = events;
  const waiting: (() => void)[] = [];
  server.pace = async () => {
    if (left-- <= 0) await new Promise<void>((resolve) => waiting.push(resolve));
  };
  return () => {
    left = Infinity;
    for (const resolve of waiting) resolve();
  };
}
