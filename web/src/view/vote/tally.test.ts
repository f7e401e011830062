import * as fc from "fast-check";
import { describe, expect, it } from "vitest";

import { ballot, normalized, tally, type Path } from "./tally";

const path = (id: string, text: string, running = false): Path => ({ id, text, running });
const box = (answer: string) => `So it is \\boxed{${answer}}.`;

describe("a boxed answer", () => {
  it.each([
    [" $42$. ", "42"],
    ["x  +\n1", "x + 1"],
    ["$ $", ""],
    ["a\u0085b\u001cc", "a b c"],
    ["\ufeff7", "\ufeff7"],
    ["1.50...", "1.50"],
  ])("%j is compared as %j, as the server does it", (answer, expected) => {
    expect(normalized(answer)).toBe(expected);
  });

  it("is compared without any space", () => {
    expect(ballot(box("\\frac{1}{2} "))?.key).toBe("\\frac{1}{2}");
    expect(ballot(box("x + 1"))?.key).toBe(ballot(box("x+1"))?.key);
  });

  it("is not there without a box, with an open box or with an empty one", () => {
    expect([ballot("42"), ballot("\\boxed{42"), ballot("\\boxed{ }")]).toEqual([null, null, null]);
  });
});

describe("a tally", () => {
  it("puts the most frequent answer first and keeps its first spelling", () => {
    const result = tally([path("a", box("41")), path("b", box("4 2")), path("c", box("42")), path("d", "none")]);
    expect(result.candidates).toEqual([
      { answer: "4 2", paths: ["b", "c"] },
      { answer: "41", paths: ["a"] },
    ]);
    expect(result.withoutBox).toEqual(["d"]);
  });

  it("lets the earliest answer win a tie", () => {
    const result = tally([path("a", box("1")), path("b", box("2")), path("c", box("2")), path("d", box("1"))]);
    expect(result.candidates[0]?.answer).toBe("1");
  });

  it("counts a path that is still running once its box is closed, and not as one without a box before that", () => {
    const result = tally([path("a", box("1"), true), path("b", "Let me", true)]);
    expect(result).toMatchObject({
      candidates: [{ answer: "1" }],
      withoutBox: [],
      running: 2,
      total: 2,
      decided: false,
    });
  });

  it("is decided once the running paths cannot change the winner", () => {
    const done = ["a", "b", "c"].map((id) => path(id, box("1")));
    expect(tally([...done, path("d", box("2")), path("e", "", true)]).decided).toBe(true);
    expect(tally([...done, path("d", box("2")), path("e", "", true), path("f", "", true)]).decided).toBe(false);
  });

  it("counts every path once, and a decided winner stays whatever the running paths say", () => {
    const answers = fc.array(
      fc.tuple(fc.constantFrom("1", "2", "3", ""), fc.boolean(), fc.constantFrom("1", "2", "3")),
      { maxLength: 16 },
    );
    fc.assert(
      fc.property(answers, (drawn) => {
        const paths = drawn.map(([answer, running], i) => path(`${i}`, answer && box(answer), running));
        const now = tally(paths);
        const voted = now.candidates.flatMap((candidate) => candidate.paths);
        const silent = paths.filter((each) => each.running && !each.text).map((each) => each.id);
        expect([...voted, ...now.withoutBox, ...silent].sort()).toEqual(paths.map((each) => each.id).sort());
        const end = tally(drawn.map(([answer, running, last], i) => path(`${i}`, box(running ? last : answer || "3"))));
        if (now.decided && now.withoutBox.length === 0 && now.candidates[0])
          expect(end.candidates[0]?.answer).toBe(now.candidates[0].answer);
      }),
    );
  });
});
