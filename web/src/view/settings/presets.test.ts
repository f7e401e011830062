import { expect, it } from "vitest";

import { held, isApplied, nameProblem } from "./presets";

it("a preset holds what shapes an answer, and neither a schema nor probabilities", () => {
  expect(held({ temperature: 0.5, schema: {}, logprobs: 3, thinking: false })).toEqual({
    temperature: 0.5,
    thinking: false,
  });
});

it("settings that say the same in other words are the applied preset", () => {
  const advice = { temperature: 0.6, topP: 0.95 };
  expect(isApplied({ ...advice, system: "", thinking: true, logprobs: 2 }, advice)).toBe(true);
  expect(isApplied({ ...advice, seed: 1 }, advice)).toBe(false);
});

it("a preset needs a name of its own, and may keep it", () => {
  const presets = [{ name: "Maths", settings: {} }];
  expect(nameProblem(" ", presets)).toBe("nameNeeded");
  expect(nameProblem("maths ", presets)).toBe("nameTaken");
  expect(nameProblem("maths", presets, "Maths")).toBeNull();
});
