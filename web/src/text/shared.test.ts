import * as fc from "fast-check";
import { expect, test } from "vitest";

import { shared } from "./shared";

test("parts that are equal are the same parts", () => {
  const before = { items: [{ text: "a", children: [{ text: "b" }] }, { text: "c", children: [] }] };
  const after = shared(before, { items: [{ text: "a", children: [{ text: "b" }] }, { text: "d", children: [] }, { text: "e", children: [] }] });
  expect(after.items[0]).toBe(before.items[0]);
  expect(after.items.map((item) => item.text)).toEqual(["a", "d", "e"]);
  expect(after.items[1]?.children).toBe(before.items[1]?.children);
  expect(shared(before, structuredClone(before))).toBe(before);
});

test("the value is the one that was given", () => {
  const plain = fc.jsonValue({ maxDepth: 4 });
  fc.assert(
    fc.property(plain, plain, (before, after) => {
      const wanted = structuredClone(after);
      expect(shared(before, after)).toEqual(wanted);
    }),
  );
});
