import * as fc from "fast-check";
import { expect, it } from "vitest";

import { partialJson } from "./partial";

it.each([
  ["", undefined],
  ["Sure", undefined],
  ["{", {}],
  ['{"a', {}],
  ['{"a"', {}],
  ['{"a":', {}],
  ['{"a": "x', { a: "x" }],
  ['{"a": "x\\', { a: "x" }],
  ['{"a": "x\\u00', { a: "x" }],
  ['{"a": 12', { a: 12 }],
  ['{"a": -', {}],
  ['{"a": tr', {}],
  ['{"a": [1, {"b": "}, ', { a: [1, { b: "}, " }] }],
  ['{"a": [1, 2], "b', { a: [1, 2] }],
  ['"abc', "abc"],
  ["[1, 2", [1, 2]],
])("%j reads as %j", (text, value) => {
  expect(partialJson(text)).toEqual(value);
});

it("every beginning of an object is an object, and the whole is the value itself", () => {
  fc.assert(
    fc.property(fc.dictionary(fc.string(), fc.jsonValue()), fc.nat(), (value, at) => {
      const text = JSON.stringify(value);
      const cut = 1 + (at % text.length);
      expect(partialJson(text.slice(0, cut))).toBeTypeOf("object");
      expect(partialJson(text)).toEqual(JSON.parse(text));
    }),
  );
});
