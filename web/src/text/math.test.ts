import { describe, expect, test } from "vitest";

import { parse } from "./blocks";
import { inlineNodes } from "./expanded";
import { inlines } from "./inline";

const NO_REFERENCES = {};

function formulas(text: string): string[] {
  return inlineNodes(parse(text)).flatMap((node) => (node.type === "formula" ? [`${node.display ? "display " : ""}${node.tex}`] : []));
}

function words(text: string): string {
  return inlines(text, NO_REFERENCES).children.map((node) => (typeof node === "string" ? node : "·")).join("");
}

describe("a formula", () => {
  test.each([
    ["\\(x^2\\)", "x^2"],
    ["\\[x^2\\]", "display x^2"],
    ["$$x^2$$", "display x^2"],
    ["$x^2$", "x^2"],
    ["so $x$, and", "x"],
    ["$\\text{if $x$ is odd}$", "\\text{if $x$ is odd}"],
    ["$a \\$ b$", "a \\$ b"],
    ["\\(a \\\\) b\\)", "a \\\\) b"],
    ["注意$x$这里", "x"],
    ["**$x$**", "x"],
    ["[$x$](https://a.example)", "x"],
    ["\\boxed{42}", "\\boxed{42}"],
    ["the answer is \\boxed{\\frac{1}{2}}.", "\\boxed{\\frac{1}{2}}"],
    ["$\\boxed{42}$", "\\boxed{42}"],
  ])("is found in %s", (text, formula) => expect(formulas(text)).toEqual([formula]));

  test.each([
    "It costs $5 or $6.",
    "$20,000 and USD$30,000",
    "$ x$",
    "$x $",
    "$x$5",
    "\\$x\\$",
    "`$x$`",
    "```\n$x$\n```",
    "    $x$",
    "$$",
    "$$$$",
    "\\(\\)",
    "\\[ \\]",
    "\\boxed",
    "$x\n\ny$",
    "\\[x\n\ny\\]",
  ])("is not found in %j", (text) => expect(formulas(text)).toEqual([]));

  test.each(["\\(x", "\\[x", "$$x", "$x", "\\boxed{4", "a \\( b", "\\(x\\\\)"])("that is not closed stays as it was written: %s", (text) => {
    expect(words(text)).toBe(text.replace("\\\\", "\\"));
  });

  test("keeps its lines, whatever they begin with", () => {
    for (const line of ["- b", "+ b", "1. b", "> b", "# b", "= b", "=", "---", "```", "| b |"]) {
      expect(formulas(`\\[\na\n${line}\nc\n\\]`)).toEqual([`display a\n${line}\nc`]);
      expect(formulas(`so\n$$\na\n${line}\n$$\nand`)).toEqual([`display a\n${line}`]);
      expect(formulas(`so \\[ a\n${line} \\] and`)).toEqual([`display a\n${line}`]);
    }
  });

  test("is found in lists and quotes", () => {
    expect(formulas("- a\n  \\[\n  x\n  - y\n  \\]\n- $b$")).toEqual(["display x\n- y", "b"]);
    expect(formulas("> $$\n> x\n> $$")).toEqual(["display x"]);
    expect(formulas("1. so:\n\\[\nx\n\\]\n2. $b$")).toEqual(["display x", "b"]);
  });

  test("that an item leaves open does not swallow the next item", () => {
    expect(parse("- the set \\[ open\n- next \\] item")[0]?.node).toMatchObject({ type: "list", items: [{}, {}] });
  });

  test("may have bars in a table", () => {
    const [table] = parse("| $|x|$ | \\(P(A|B)\\) |\n|---|---|\n| a | $b|c$ |");
    expect(table?.node).toMatchObject({ head: [{ content: "$|x|$" }, { content: "\\(P(A|B)\\)" }], rows: [[{}, { content: "$b|c$" }]] });
    expect(formulas("| $|x|$ | \\(P(A|B)\\) |\n|---|---|\n| a | $b|c$ |")).toEqual(["|x|", "P(A|B)", "b|c"]);
  });

  test("leaves the bars of code in a table alone, too", () => {
    const [table] = parse("| `a|b` | ``c`|`` |\n|---|---|\n| `d | e` | f |\n| `g | h |");
    expect(table?.node).toMatchObject({
      head: [{ content: "`a|b`" }, { content: "``c`|``" }],
      rows: [
        [{ content: "`d | e`" }, { content: "f" }],
        [{ content: "`g" }, { content: "h" }],
      ],
    });
  });

  test("does not make cells of prices and shell variables one", () => {
    const [prices] = parse("| $5|$6 |\n|---|---|\n| $a|$b | 2 |");
    expect(prices?.node).toMatchObject({ head: [{ content: "$5" }, { content: "$6" }], rows: [[{ content: "$a" }, { content: "$b" }]] });
  });
});

describe("a backslash", () => {
  test("still escapes what is no formula", () => expect(words("\\*a\\* \\_b\\_ \\# \\)")).toBe("*a* _b_ # )"));
});
