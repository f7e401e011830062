import { expect, it } from "vitest";

import { plainText } from "./plain";

it.each([
  ["# Title\n\nSome **bold** and *italic* `code`.", "Title\n\nSome bold and italic code."],
  ["- a\n- b\n  1. c\n  2. d", "- a\n- b\n  1. c\n  2. d"],
  ["3. x\n4. y", "3. x\n4. y"],
  ["- [x] done\n- [ ] open", "- [x] done\n- [ ] open"],
  ["> said\n>\n> again", "> said\n\n> again"],
  ["| a | b |\n|---|---|\n| 1 | **2** |", "a\tb\n1\t2"],
  ["```python\nprint(1)\n```", "print(1)"],
  ["It is $x^2$ and \\[y\\].", "It is $x^2$ and \\[y\\]."],
  ["[here](https://example.org/a)", "here (https://example.org/a)"],
  ["", ""],
])("%j reads as %j", (markdown, plain) => {
  expect(plainText(markdown)).toBe(plain);
});
