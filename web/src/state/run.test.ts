/** The text of an answer and the number of its last event belong together: wherever it is cut, attaching adds up. */
import "fake-indexeddb/auto";
import * as fc from "fast-check";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Browser } from "../testing/browser";
import type { AnswerEvent } from "../api/types";
import type { Message } from "./conversation";

let browser: Browser;
let modules: {
  documents: typeof import("./documents");
  run: typeof import("./run");
  conversation: typeof import("./conversation");
};

beforeEach(async () => {
  vi.unstubAllGlobals();
  browser = new Browser();
  vi.resetModules();
  modules = {
    documents: await import("./documents"),
    run: await import("./run"),
    conversation: await import("./conversation"),
  };
});
afterEach(() => browser.close());

const MESSAGE: Message = {
  id: "a",
  parent: null,
  role: "assistant",
  createdAt: 1,
  text: "",
  answer: { state: "running", thought: "", settings: { seed: 1 } },
};

function stored(): Message {
  return modules.documents.documentOf("c")?.messages["a"] as Message;
}

const piece = fc.record({ isThought: fc.boolean(), text: fc.string({ maxLength: 4 }), silent: fc.nat(2) });

/** Numbered as a server numbers them: events that say nothing to the page count too. */
function numbered(pieces: { isThought: boolean; text: string; silent: number }[]): AnswerEvent[] {
  let number = 0;
  const events: AnswerEvent[] = [{ type: "accepted", responseId: "r", number: number++ }];
  for (const { isThought, text, silent } of pieces) {
    number += silent;
    events.push({ type: isThought ? "thought" : "text", text, number: number++ });
  }
  events.push({ type: "ended", finishReason: "stop", number });
  return events;
}

test("cut at any events, stored at any, attached with any overlap: no character is doubled or lost", () => {
  const cuts = fc.array(fc.record({ after: fc.nat(12), storedAt: fc.nat(12), overlap: fc.nat(3) }), { maxLength: 6 });
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 20 }), cuts, (pieces, all) => {
      const { documents, run, conversation } = modules;
      documents.drop("c");
      documents.adopt(conversation.withMessage(conversation.newConversation("c", 0), MESSAGE));
      const events = numbered(pieces);
      for (const { after, storedAt, overlap } of [...all, { after: Infinity, storedAt: 0, overlap: 0 }]) {
        const current = new run.Run("c", stored(), { turns: [], settings: {} });
        const rest = events.filter((event) => (event.number ?? 0) > current.lastEvent - overlap);
        let isOver = false;
        for (const [at, event] of rest.slice(0, after).entries()) {
          isOver = current.apply(event);
          if (at % (storedAt + 1) === 0) current.store();
        }
        if (isOver) break;
        current.isOver = true; // the page is gone; what was not stored is lost with it
      }
      const text = (isThought: boolean): string => pieces.filter((each) => each.isThought === isThought).map((each) => each.text).join("");
      expect([stored().answer?.thought, stored().text, stored().answer?.state]).toEqual([text(true), text(false), "done"]);
    }),
    { numRuns: 300 },
  );
});

test("a long thought costs no copy per token", () => {
  const { documents, run, conversation } = modules;
  documents.adopt(conversation.withMessage(conversation.newConversation("c", 0), MESSAGE));
  const current = new run.Run("c", stored(), { turns: [], settings: {} });
  let shown = 0;
  current.thought.shown.subscribe(() => shown++);
  for (let number = 0; number < 30_000; number++) current.apply({ type: "thought", text: "word ", number });
  expect(shown).toBe(1); // nothing is shown before a frame
  current.thought.show();
  expect(current.thought.shown.value).toHaveLength(150_000);
});
