import { readFileSync } from "node:fs";

import * as fc from "fast-check";
import { describe, expect, test } from "vitest";

import { Blocks, parse } from "./blocks";
import { expanded } from "./expanded";

/** Pieces whose meaning depends on what follows them, in every combination. */
const PIECES = [
  ..."abc 0 5 \t".split(""),
  ..."\n\n\n\n\n".split(""),
  ..."#-=*_`~>|:+.[](){}$\\!&<'\"\r".split(""),
  "\n\n",
  "\r\n",
  "\n\n\n",
  "- ",
  "* ",
  "1. ",
  "2) ",
  "> ",
  "    ",
  "  ",
  "# ",
  "```",
  "```js\n",
  "~~~~",
  "---",
  "===",
  "***",
  "| a | b |\n|---|:-:|\n",
  "|-|-|",
  "**",
  "~~",
  "[a]: http://a.example 'title'\n",
  "[a]: /b\n",
  "[a]",
  "[A][a]",
  "[x](http://b.example)",
  "![i](https://c.example/i.png)",
  "https://d.example/x",
  "\\(",
  "\\)",
  "\\[",
  "\\]",
  "$$",
  "\\boxed{",
  "[ ] ",
  "[x] ",
  "注意：",
  "这里",
  "😀",
  "\u0000",
  "\u202e",
  "\uFDD0",
  "&amp;",
  "<b>",
];

const documents = fc.array(fc.constantFrom(...PIECES), { maxLength: 60 }).map((pieces) => pieces.join(""));

function streamedEqualsParsed(text: string, cuts: Iterable<number>): void {
  const blocks = new Blocks();
  for (const cut of cuts) expect(expanded(blocks.update(text.slice(0, cut)))).toEqual(expanded(parse(text.slice(0, cut))));
  expect(expanded(blocks.update(text, true))).toEqual(expanded(parse(text)));
}

describe("a text that streams", () => {
  test("is at every moment what its beginning is when parsed at once", () => {
    fc.assert(
      fc.property(documents, (text) => streamedEqualsParsed(text, Array.from({ length: text.length }, (_, index) => index + 1))),
      { numRuns: 300 },
    );
  });

  test("may arrive in pieces of any size", () => {
    const cut = fc.tuple(documents, fc.array(fc.nat(), { maxLength: 12 }));
    fc.assert(
      fc.property(cut, ([text, positions]) => {
        streamedEqualsParsed(text, positions.map((position) => position % (text.length + 1)).toSorted((one, other) => one - other));
      }),
      { numRuns: 500 },
    );
  });

  test("of the kind that models write is the same cut at every character", () => {
    const text = readFileSync(new URL("answer.example.md", import.meta.url), "utf8");
    streamedEqualsParsed(text, Array.from({ length: text.length }, (_, index) => index + 1));
  });

  test("keeps the objects of its finished blocks", () => {
    const blocks = new Blocks();
    const first = blocks.update("# One\n\n- two\n- three\n\nfour\n\nfive");
    const second = blocks.update("# One\n\n- two\n- three\n\nfour\n\nfive and six\n\nseven");
    expect(second.slice(0, 3)).toEqual(first.slice(0, 3));
    for (const index of [0, 1, 2]) expect(second[index]).toBe(first[index]);
    const whole = blocks.update("# One\n\n- two\n- three\n\nfour\n\nfive and six\n\nseven", true);
    for (const index of [0, 1, 2, 3]) expect(whole[index]).toBe(second[index]);
  });

  test("is parsed once, but for its last blocks", () => {
    const text = Array.from({ length: 400 }, (_, index) => `Paragraph ${index} with **some** words and \\(x_${index}\\).`).join("\n\n");
    const blocks = new Blocks();
    let steps = 0;
    for (let end = 4; end <= text.length; end += 4, steps++) blocks.update(text.slice(0, end));
    expect(blocks.parsed).toBeLessThan(steps * 150); // two or three paragraphs for each step
  });

  test("starts anew when it is replaced by another text", () => {
    const blocks = new Blocks();
    blocks.update("one\n\ntwo\n\nthree\n\n");
    expect(expanded(blocks.update("other\n\ntwo"))).toEqual(expanded(parse("other\n\ntwo")));
    expect(expanded(blocks.update(""))).toEqual([]);
  });

  test("gives a link its address when the definition arrives, in blocks that were finished too", () => {
    const blocks = new Blocks();
    const before = blocks.update("See [it].\n\nPlain words.\n\nMore");
    const after = blocks.update("See [it].\n\nPlain words.\n\nMore\n\n[it]: https://a.example/\n");
    expect(JSON.stringify(expanded(before))).not.toContain("a.example");
    expect(JSON.stringify(expanded(after.slice(0, 1)))).toContain("https://a.example/");
    expect(after[1]).toBe(before[1]);
  });
});
