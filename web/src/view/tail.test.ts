import { expect, test } from "vitest";

import { TAIL, tailStart } from "./tail";

const grown = (line: string, characters: number): string => line.repeat(Math.ceil(characters / line.length)).slice(0, characters);

test("a short text is shown whole", () => {
  expect(tailStart("")).toBe(0);
  expect(tailStart(grown("A line.\n\n", 2 * TAIL))).toBe(0);
});

test("of a long text enough is shown to fill the window, and not much more", () => {
  for (const line of ["word ", "A sentence of a thought.\n\n", `${"x".repeat(5000)}\n\n`]) {
    for (let length = 2 * TAIL + 1; length < 20 * TAIL; length += 997) {
      const shown = length - tailStart(grown(line, length));
      expect(shown).toBeGreaterThanOrEqual(TAIL / 2);
      expect(shown).toBeLessThan(2 * TAIL + 1);
    }
  }
});

test("the beginning moves seldom, and only forwards", () => {
  const text = grown("A sentence of a thought.\n\n", 30 * TAIL);
  let moves = 0;
  for (let length = 1, last = 0; length <= text.length; length += 7) {
    const start = tailStart(text.slice(0, length));
    expect(start).toBeGreaterThanOrEqual(last);
    if (start !== last) moves += 1;
    last = start;
  }
  expect(moves).toBeLessThanOrEqual(30);
});

test("it begins with a paragraph where there are some", () => {
  const text = grown("A sentence of a thought.\n\n", 10 * TAIL);
  expect(text.slice(tailStart(text))).toMatch(/^A sentence/u);
});

test("no character is cut", () => {
  const text = grown("x😀", 9 * TAIL + 1);
  expect(text.slice(tailStart(text))).toMatch(/^[x\u{1f600}]/u);
});
