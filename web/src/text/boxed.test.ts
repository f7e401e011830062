import { expect, test } from "vitest";

import { boxed } from "./boxed";

test.each([
  ["\\boxed{42}", "42"],
  ["\\(\\boxed{ 42 }\\)", "42"],
  ["\\boxed{1} then \\boxed{2}", "2"],
  ["\\boxed{\\frac{1}{2}}", "\\frac{1}{2}"],
  ["\\boxed{\\{1, 2\\}}", "\\{1, 2\\}"],
  ["\\boxed{1} and \\boxed{2", "1"],
  ["\\boxed{}", ""],
])("the last complete box of %s holds %j", (text, content) => expect(boxed(text)).toBe(content));

test.each(["", "42", "\\boxed", "\\boxed{", "\\boxed{4", "boxed{4}"])("there is no box in %j", (text) => expect(boxed(text)).toBeNull());
