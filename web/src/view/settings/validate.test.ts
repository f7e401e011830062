import * as fc from "fast-check";
import { describe, expect, it } from "vitest";

import { keyProblem, readNumber, RULES, size } from "./validate";

describe("a number of the settings", () => {
  it.each([
    ["0.6", 0.6],
    [" 2 ", 2],
    ["0,6", 0.6],
    [",5", 0.5],
    ["０．６", 0.6],
    ["", undefined],
    ["  ", undefined],
    ["1e-1", 0.1],
  ])("%j is read as %j", (text, value) => {
    expect(readNumber(text, RULES.temperature)).toEqual({ value });
  });

  it.each(["abc", "0x1", "1.2.3", "--1", "Infinity", "NaN", "1,000,5", "one"])("%j is none", (text) => {
    expect(readNumber(text, RULES.temperature)).toEqual({ problem: { kind: "number" } });
  });

  it("is refused outside of its range, with the range", () => {
    expect(readNumber("2.1", RULES.temperature)).toEqual({ problem: { kind: "range", least: 0, most: 2 } });
    expect(readNumber("-1", RULES.temperature)).toEqual({ problem: { kind: "range", least: 0, most: 2 } });
    expect(readNumber("0", RULES.topP)).toEqual({ problem: { kind: "above", least: 0, most: 1 } });
    expect(readNumber("1", RULES.topP)).toEqual({ value: 1 });
  });

  it("is whole where it counts something", () => {
    expect(readNumber("1.5", RULES.maxTokens)).toEqual({ problem: { kind: "whole" } });
    expect(readNumber("x", RULES.maxTokens)).toEqual({ problem: { kind: "whole" } });
    expect(readNumber("32 768", RULES.maxTokens)).toEqual({ value: 32768 });
  });

  it("that would lose digits is refused as a seed", () => {
    expect(readNumber("9007199254740993", RULES.seed)).toHaveProperty("problem");
    expect(readNumber("9007199254740991", RULES.seed)).toEqual({ value: 9007199254740991 });
  });

  it("comes back from its own spelling", () => {
    const numbers = fc.double({ min: 0, max: 2, noNaN: true });
    fc.assert(
      fc.property(numbers, (value) => {
        expect(readNumber(String(value), RULES.temperature)).toEqual({ value });
      }),
    );
  });
});

it.each([
  ["", "empty"],
  ["a b", "characters"],
  ["schlüssel", "characters"],
  ["a\n", "characters"],
  ["sk-123_~!", null],
])("the key %j has the problem %j", (key, problem) => {
  expect(keyProblem(key)).toBe(problem);
});

it("sizes have a unit that suits them", () => {
  expect([0, 999, 1234, 5_600_000, 12_300_000_000].map((bytes) => size(bytes, "en"))).toEqual([
    "0 byte",
    "999 byte",
    "1.2 kB",
    "5.6 MB",
    "12 GB",
  ]);
});
