import { expect, test } from "vitest";

import { boxedAnswer } from "../view/vote/boxed";
import { LONG } from "./attacks";
import { parse } from "./blocks";
import { expanded } from "./expanded";

/** Processor time in milliseconds: other programs on the machine do not count. */
function cost(work: () => unknown): number {
  const before = process.cpuUsage();
  work();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1000;
}

const SHORT = 10_000;
const TIMES = 8;
const SMALL = 40; // milliseconds: below, a measurement says nothing

/** Work that grows with the square of the length would be 64 times as much. */
function isAboutLinear(work: (text: string) => unknown, make: (length: number) => string): boolean {
  const [short, long] = [make(SHORT), make(SHORT * TIMES)];
  return [1, 2, 3].some(() => {
    const one = Math.max(SMALL / TIMES, cost(() => work(short)));
    return cost(() => work(long)) <= 3 * TIMES * one;
  });
}

test.each(Object.entries(LONG))("a long text of %s costs about as much as its length", (_name, make) => {
  expect(isAboutLinear((text) => expanded(parse(text)), make)).toBe(true);
});

test.each(Object.entries(LONG))("the box in a long text of %s is found in about its length", (_name, make) => {
  expect(isAboutLinear(boxedAnswer, make)).toBe(true);
});
