// @vitest-environment happy-dom
/** The file that is shared: complete, safe, and with a policy that its own style satisfies. */
import { createHash } from "node:crypto";
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { newConversation, withMessage } from "../state/conversation";
import { sha256 } from "./sha256";
import { shareFile } from "./share";

const digest = (text: string): string => createHash("sha256").update(text).digest("base64");

test("SHA-256 is that of the standard", () => {
  expect(sha256("abc")).toBe("ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=");
  const text = fc.string({ unit: "grapheme", maxLength: 300 });
  fc.assert(
    fc.property(text, (any) => {
      expect(sha256(any)).toBe(digest(any));
    }),
  );
});

const conversation = withMessage(newConversation("c", 0), { id: "1", parent: null, role: "user", createdAt: 1, text: "Why <b>?" });

async function fileOf(...elements: HTMLElement[]): Promise<string> {
  return await shareFile(conversation, elements).text();
}

function element(name: string, attributes: Record<string, string> = {}, ...children: (Node | string)[]): HTMLElement {
  const made = document.createElement(name);
  for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
  made.append(...children);
  return made;
}

test("its policy allows its style and nothing else", async () => {
  const text = await fileOf(element("article", {}, "Hello"));
  const style = /<style>([^]*)<\/style>/u.exec(text)?.[1] ?? "";
  expect(text).toContain(`style-src 'sha256-${digest(style)}'`);
  expect(text).toContain("default-src 'none'");
  expect(text).toContain("Hello");
  expect(text).toContain("Why &lt;b&gt;?"); // the title
});

test("no script, handler, image, style or foreign scheme comes along", async () => {
  const bad = element(
    "article",
    { onclick: "alert(1)", style: "background: url(//evil)", id: "x" },
    element("script", {}, "alert(1)"),
    element("img", { src: "//evil" }),
    element("iframe", { src: "//evil" }),
    element("a", { href: "javascript:alert(1)" }, "link"),
    element("a", { href: "https://example.org/", target: "_blank" }, "good"),
    element("button", {}, "Copy"),
    element("blink", {}, "text"),
  );
  const text = await fileOf(bad);
  expect(text).not.toMatch(/evil|alert|onclick|javascript|<script|<img|<iframe|Copy|style=|blink/u);
  expect(text).toContain('href="https://example.org/"');
  expect(text).toContain("link");
  expect(text).toContain("text");
});

test("formulas stay as MathML", async () => {
  const math = document.createElementNS("http://www.w3.org/1998/Math/MathML", "math");
  math.append("x");
  const formula = element("span", { class: "katex" }, element("span", { class: "katex-mathml" }, math), element("span", { class: "katex-html" }, "twice"));
  const text = await fileOf(formula);
  expect(text).toMatch(/<math[^>]*>x<\/math>/u);
  expect(text).not.toContain("twice");
  expect(text).not.toContain("katex-mathml");
});
