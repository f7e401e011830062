import { expect, test } from "vitest";

import { highlight, languageName, type Piece } from "./highlight";

const textOf = (pieces: readonly Piece[]): string => pieces.map((piece) => (typeof piece === "string" ? piece : textOf(piece.children))).join("");

test.each(["python", "Py", "js", "tsx", "c++", "c#", "sh", "html", "json", "yml", "sql", "rust", "go", "java", "css", "md", "c"])(
  "code in %s has colours, and the same text",
  async (language) => {
    const code = 'class A { x = "y"; } // 1 <b>\n# def f(): return 1\nselect 2';
    const pieces = await highlight(code, language);
    expect(pieces?.some((piece) => typeof piece !== "string" && piece.classes.startsWith("hljs-"))).toBe(true);
    expect(textOf(pieces ?? [])).toBe(code);
  },
);

test.each(["", "klingon", "__proto__", "constructor", "toString", "hasOwnProperty"])("a language called %j is not guessed", async (language) => {
  expect(await highlight("let x = 1", language)).toBeNull();
  expect(languageName(language)).toBe(language);
});

test("code that is too long, or has a line that is, has no colours", async () => {
  expect(await highlight("x = 1\n".repeat(10_000), "python")).toBeNull();
  expect(await highlight(`x = "${"a".repeat(3000)}"`, "python")).toBeNull();
});

test("a language is called by its own name", () => {
  expect(languageName("py")).toBe("Python");
  expect(languageName("CPP")).toBe("C++");
});
