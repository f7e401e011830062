import * as fc from "fast-check";
import { expect, it } from "vitest";

import { firstDifference } from "./difference";

it("finds none between equal texts", () => {
  expect(firstDifference("abc", "abc")).toBeNull();
});

it("shows what is around the first difference", () => {
  expect(firstDifference("the sum is 42.", "the sum is 41.")).toEqual({
    at: 12,
    before: "the sum is 4",
    left: "2.",
    right: "1.",
  });
});

it("shows that one text ends earlier", () => {
  expect(firstDifference("ab", "abc")).toEqual({ at: 2, before: "ab", left: "", right: "c" });
});

it("never cuts a character of two units", () => {
  expect(firstDifference("a😀b", "a😁b")).toEqual({ at: 1, before: "a", left: "😀b", right: "😁b" });
});

it("counts exactly the characters that begin both texts", () => {
  const text = fc.string({ unit: "grapheme-composite", maxLength: 200 });
  fc.assert(
    fc.property(text, text, text, (common, a, b) => {
      const found = firstDifference(common + a, common + b);
      if (a === b) {
        expect(found).toBeNull();
        return;
      }
      const [left, right] = [[...(common + a)], [...(common + b)]];
      expect(left.slice(0, found?.at)).toEqual(right.slice(0, found?.at));
      expect(left[found?.at ?? 0]).not.toBe(right[found?.at ?? 0]);
    }),
  );
});
