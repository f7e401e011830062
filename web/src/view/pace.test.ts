import { expect, test } from "vitest";

import { Pace } from "./pace";

function paceAt(): { pace: Pace; clock: { now: number } } {
  const clock = { now: 1000 };
  return { pace: new Pace(() => clock.now), clock };
}

test("quick changes are shown at once", () => {
  const { pace, clock } = paceAt();
  for (const text of ["a", "ab", "abc"]) {
    expect(pace.next(text, true)).toEqual({ text, wait: null });
    clock.now += 2;
    pace.changed();
  }
});

test("after a change that took long, the next one waits four times as long", () => {
  const { pace, clock } = paceAt();
  pace.next("a", true);
  clock.now += 50;
  pace.changed();
  expect(pace.next("ab", true)).toEqual({ text: "a", wait: 200 });
  clock.now += 200;
  expect(pace.next("abc", true)).toEqual({ text: "abc", wait: null });
});

test("a complete text does not wait", () => {
  const { pace, clock } = paceAt();
  pace.next("a", true);
  clock.now += 500;
  pace.changed();
  expect(pace.next("ab", false)).toEqual({ text: "ab", wait: null });
});
