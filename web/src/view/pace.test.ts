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
    pace.drawn(clock.now);
  }
});

test("after a change that took long, the next one waits three times as long", () => {
  const { pace, clock } = paceAt();
  pace.next("a", true);
  clock.now += 30;
  pace.changed();
  clock.now += 20; // the browser's layout
  pace.drawn(1030);
  expect(pace.next("ab", true)).toEqual({ text: "a", wait: 150 });
  clock.now += 150;
  expect(pace.next("abc", true)).toEqual({ text: "abc", wait: null });
});

test("a complete text does not wait", () => {
  const { pace, clock } = paceAt();
  pace.next("a", true);
  clock.now += 500;
  pace.changed();
  pace.drawn(clock.now);
  expect(pace.next("ab", false)).toEqual({ text: "ab", wait: null });
});
