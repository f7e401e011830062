/** Connections that break anywhere, pages that are gone at any moment: the answer is whole in the end. */
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { opened, until, type Page } from "../testing/browser";
import { browser, server } from "../testing/setup";

const ANSWER = { thought: ["数学 ", "is ", "🙂 fun", ". "], text: ["Ünder ", "the ", "sea\n", "\\(x\\)", " end"] };

async function isWhole(page: Page): Promise<void> {
  await until(() => page.generation.live.value.size === 0 && last(page)?.answer?.state !== "running", "the end");
  const { text, answer } = last(page) ?? {};
  expect([answer?.state, answer?.thought, text]).toEqual(["done", ANSWER.thought.join(""), ANSWER.text.join("")]);
}

const last = ({ conversations, conversation }: Page) => conversation.path(conversations.current.value).at(-1);

test("a stream that breaks at any bytes, in any chunks", async () => {
  const page = await opened(browser);
  const cuts = fc.array(fc.integer({ min: 150, max: 2500 }), { maxLength: 2 });
  await fc.assert(
    fc.asyncProperty(cuts, fc.integer({ min: 1, max: 400 }), async (all, chunk) => {
      server.answer = ANSWER;
      server.cuts = [...all];
      server.chunk = chunk;
      page.conversations.startNew();
      page.generation.send("Go");
      await isWhole(page);
    }),
    { numRuns: 25 },
  );
}, 60_000);

test("a page that is gone after any event, saved or not, is loaded again and has it all", async () => {
  server.answer = ANSWER;
  const events = 4 + ANSWER.thought.length + ANSWER.text.length;
  for (let after = 1; after < events; after++) {
    let left = after;
    const blocked: (() => void)[] = [];
    server.pace = async () => {
      if (left-- <= 0) await new Promise<void>((resolve) => blocked.push(resolve));
    };
    const page = await opened(browser);
    page.conversations.startNew();
    page.generation.send("Go");
    await until(() => blocked.length > 0);
    await until(() => [...page.streams.runs.values()].some((run) => run.responseId !== undefined));
    if (after % 2 === 0) await browser.leave(page);
    else {
      await page.documents.flush(); // as after the first event
      browser.crash(page);
    }
    const again = await opened(browser);
    await again.conversations.open(page.conversations.current.value.id);
    server.pace = async () => undefined;
    for (const resolve of blocked) resolve();
    await isWhole(again);
    browser.crash(again);
  }
}, 60_000);
