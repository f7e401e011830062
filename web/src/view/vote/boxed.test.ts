import * as fc from "fast-check";
import { expect, it } from "vitest";

import { boxedAnswer } from "./boxed";

// The same cases as in the server's tests/unit/test_boxed.py.
it.each([
  [String.raw`So it is \boxed{42}.`, "42"],
  [String.raw`\boxed{1}, no: \boxed{2}`, "2"],
  [String.raw`\boxed{\frac{1}{2}}`, String.raw`\frac{1}{2}`],
  [String.raw`\boxed {x}`, "x"],
  [String.raw`\boxed{\{1, 2\}}`, String.raw`\{1, 2\}`],
  [String.raw`\boxed{a \} b}`, String.raw`a \} b`],
  [String.raw`\boxed{5} and then \boxed{cut sh`, "5"],
  [String.raw`a { brace and \boxed{5}`, "5"],
  [String.raw`a } brace and \boxed{5}`, "5"],
  [String.raw`\boxed{\text{one \boxed{1} two}}`, "1"],
  ["\\boxed{two\nlines}", "two\nlines"],
  [String.raw`\boxed{}`, ""],
  [String.raw`\\boxed{no command}`, null],
  ["boxed{5}", null],
  [String.raw`\boxed 5`, null],
  [String.raw`\boxed{{5}`, null],
  ["\\", null],
  ["", null],
])("the last box of %j holds %j", (text, answer) => {
  expect(boxedAnswer(text)).toBe(answer);
});

it("a whole box at the end is always found", () => {
  const before = fc.string({ unit: fc.constantFrom("\\", "{", "}", " ", "a", "\\boxed{"), maxLength: 40 });
  fc.assert(
    fc.property(before, fc.constantFrom("", "x", "xy"), (text, content) => {
      const ended = /(?<!\\)(\\\\)*$/u.test(text) ? text : `${text} `; // an odd backslash would escape the box
      expect(boxedAnswer(`${ended}\\boxed{${content}}`)).toBe(content);
    }),
  );
});

it.each(["\\boxed{", "{", "}", "\\", `\\boxed ${" ".repeat(20)}`])(
  "a million characters of %j are read at once",
  (unit) => {
    expect(boxedAnswer(unit.repeat(Math.floor(1_000_000 / unit.length)))).toBeNull();
  },
);
