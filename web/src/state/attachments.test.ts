/** Files in the text that the model reads. */
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { withAttachments } from "./attachments";

test("a file is a fenced block below its name", () => {
  expect(withAttachments("Look:", [{ name: "a.py", text: "x = 1\n" }, { name: "notes", text: "hi" }])).toBe(
    "Look:\n\na.py:\n```py\nx = 1\n```\n\nnotes:\n```\nhi\n```",
  );
});

test("a file alone is sent alone, and no file changes nothing", () => {
  expect(withAttachments("", [{ name: "a.txt", text: "" }])).toBe("a.txt:\n```txt\n```");
  expect(withAttachments("Only this.", [])).toBe("Only this.");
});

test("no file can end its fence, and no name can begin a line", () => {
  const text = fc.array(fc.constantFrom("`", "```", "````", "\n", "a", " ")).map((parts) => parts.join(""));
  const name = fc.array(fc.constantFrom("a", "\n", "`", ".md", "\u2028")).map((parts) => parts.join(""));
  fc.assert(
    fc.property(text, name, (content, called) => {
      const [first, fence, ...rest] = withAttachments("", [{ name: called, text: content }]).split("\n");
      const mark = /^`+/u.exec(fence ?? "")?.[0] ?? "";
      expect(first?.endsWith(":")).toBe(true);
      expect(rest.at(-1)).toBe(mark);
      expect(rest.slice(0, -1).some((line) => line.trim().startsWith(mark))).toBe(false);
      expect(rest.slice(0, -1).join("\n")).toBe(content.endsWith("\n") ? content.slice(0, -1) : content);
    }),
  );
});
