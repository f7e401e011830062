import { expect, it } from "vitest";

import { candidatesOf, partsOf, SHADES, shadeOf, visible } from "./shades";

it.each([
  [1, 0],
  [0.9, 0],
  [0.89, 1],
  [0.3, 2],
  [0.1, 3],
  [0.0001, 4],
])("a probability of %d has shade %d", (probability, shade) => {
  expect(shadeOf(Math.log(probability) + 1e-12)).toBe(shade);
});

it("a probability of zero has the last shade", () => {
  expect(shadeOf(-Infinity)).toBe(SHADES.length - 1);
  expect(shadeOf(-9999)).toBe(SHADES.length - 1);
});

it("the drawn token is listed once, among its rivals by probability", () => {
  const rivals = [
    { token: "a", logprob: -0.1 },
    { token: "b", logprob: -2.5 },
    { token: "c", logprob: -4 },
  ];
  const listed = candidatesOf({ token: "b", logprob: -2.5, rivals });
  expect(listed.map((each) => [each.token, each.drawn])).toEqual([
    ["a", false],
    ["b", true],
    ["c", false],
  ]);
});

it("a token outside the listed rivals is added", () => {
  expect(candidatesOf({ token: "z", logprob: -9, rivals: [{ token: "a", logprob: -0.1 }] }).at(-1)).toMatchObject({
    token: "z",
    drawn: true,
  });
});

it("white space is visible", () => {
  expect(visible(" a\n\t")).toBe("·a↵⇥");
});

it("parts end with lines, and not before they are long enough", () => {
  const tokens = ["a", "\n", "b", "c", ".\n\n", "d", "\n"].map((token) => ({ token, logprob: 0, rivals: [] }));
  expect(partsOf(tokens, 2)).toEqual([0, 2, 5]);
  expect(partsOf(tokens, 3)).toEqual([0, 5]);
  expect(partsOf(tokens, 100)).toEqual([0]);
  expect(partsOf([], 2)).toEqual([]);
});
