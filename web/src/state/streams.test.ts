/** Who may stream, and who looks in when. */
import { beforeEach, afterEach, expect, test, vi } from "vitest";
import { Browser } from "../testing/browser";

let browser: Browser;
let streams: typeof import("./streams");

beforeEach(async () => {
  vi.unstubAllGlobals();
  browser = new Browser();
  vi.resetModules();
  streams = await import("./streams");
});
afterEach(() => {
  vi.useRealTimers();
  browser.close();
});

test("the first four answers of a tab stream, the others take turns", () => {
  for (const id of ["a", "b", "c", "d", "e", "f", "g"]) streams.streaming.add(id);
  expect([...streams.streaming].filter(streams.mayStream)).toEqual(["a", "b", "c", "d"]);
  const at = 1_000_000;
  const turns = ["e", "f", "g"].map((id) => (at + streams.untilLook(id, at)) % 1800);
  expect(new Set(turns).size).toBe(3);
  expect(turns.every((turn) => turn % 600 === 0)).toBe(true);
  expect(streams.untilLook("e", at + streams.untilLook("e", at))).toBe(1800);
});

test("a tab that has been hidden for a while streams nothing, and all again when it is shown", () => {
  vi.useFakeTimers({ now: 1_000_000, toFake: ["Date"] });
  streams.streaming.add("a");
  browser.show(false);
  streams.noteVisibility();
  expect(streams.mayStream("a")).toBe(true);
  vi.setSystemTime(1_006_000);
  expect(streams.mayStream("a")).toBe(false);
  browser.show(true);
  streams.noteVisibility();
  expect(streams.mayStream("a")).toBe(true);
});
