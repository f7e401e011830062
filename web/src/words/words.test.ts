import { describe, expect, test } from "vitest";

import { en } from "./en";
import { clock } from "./format";
import { zh } from "./zh";

type Tree = { [key: string]: unknown };

/** The path of every text, with the number of arguments where it is made of some. */
function shape(words: Tree, above = ""): string[] {
  return Object.entries(words).flatMap(([key, value]) => {
    const name = `${above}.${key}`;
    if (typeof value === "function") return [name];
    return typeof value === "object" && value !== null ? shape(value as Tree, name) : [name];
  });
}

/** Every text that needs no argument. */
function texts(words: Tree): string[] {
  return Object.values(words).flatMap((value) => {
    if (typeof value === "string") return [value];
    return typeof value === "object" && value !== null ? texts(value as Tree) : [];
  });
}

test("both languages have the same texts", () => {
  expect(shape(zh as unknown as Tree)).toEqual(shape(en as unknown as Tree));
});

test("no text is empty", () => {
  expect([...texts(en as unknown as Tree), ...texts(zh as unknown as Tree)].filter((text) => text.trim() === "")).toEqual([]);
});

test("Chinese texts are Chinese, but for names", () => {
  const latin = texts(zh as unknown as Tree).filter((text) => !/[\u4e00-\u9fff]/u.test(text));
  expect(latin.filter((text) => !/^(Antiphon|zh-CN|JSON|Markdown)$/u.test(text))).toEqual([]);
});

describe("numbers", () => {
  test("times are in the largest units that fit", () => {
    expect(en.format.duration(0.21)).toBe("0.2 s");
    expect(en.format.duration(41.2)).toBe("41 s");
    expect(en.format.duration(59.7)).toBe("1 min");
    expect(en.format.duration(125)).toBe("2 min 5 s");
    expect(en.format.duration(3725)).toBe("1 h 2 min");
    expect(zh.format.duration(125)).toBe("2 分 5 秒");
  });

  test("a clock has no more places than it needs", () => {
    expect([0, 41.9, 725, 3725, -3].map(clock)).toEqual(["0:00", "0:41", "12:05", "1:02:05", "0:00"]);
  });

  test("places in line are ordinals", () => {
    expect([1, 2, 3, 4, 11, 12, 13, 21, 22, 103].map(en.format.ordinal)).toEqual(
      "1st 2nd 3rd 4th 11th 12th 13th 21st 22nd 103rd".split(" "),
    );
    expect(zh.phase.waiting(3)).toBe("排队中：第 3 位");
  });

  test("rates have a decimal only where it says something", () => {
    expect([0.94, 9.17, 19.96, 41.4].map(en.format.rate)).toEqual(["0.9", "9.2", "20", "41"]);
  });

  test("a thought is described with what is known of it", () => {
    expect(en.thought.title(41, 512)).toBe("Thought for 41 s · 512 tokens");
    expect(en.thought.title(undefined, 1)).toBe("Thought · 1 token");
    expect(zh.thought.title(41, 512)).toBe("思考了 41 秒 · 512 个 token");
  });

  test("how long 1,000 tokens take is rounded to what a reader can use", () => {
    expect([1000 / 9.1, 33, 4000].map(en.status.thousand)).toEqual([
      "1,000 tokens ≈ 2 min",
      "1,000 tokens ≈ 35 s",
      "1,000 tokens ≈ 1 h 7 min",
    ]);
  });
});
