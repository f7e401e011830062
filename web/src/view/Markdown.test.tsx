// @vitest-environment happy-dom
import { readFileSync } from "node:fs";

import { render } from "preact";
import { act } from "preact/test-utils";
import { afterEach, beforeAll, describe, expect, test, vi } from "vitest";

import { Blocks } from "../text/blocks";
import { typeset } from "../text/katex";
import { show, waitingFormulas } from "../text/typeset";
import { Markdown } from "./Markdown";
import { ATTACKS } from "./Markdown.attacks";

/** KaTeX refuses documents without a doctype, and happy-dom says that it has none. */
vi.hoisted(() => Object.defineProperty(document, "compatMode", { value: "CSS1Compat" }));

/** Each text is shown at once here, on a slow machine too: `pace.test.ts` tests the waiting. */
vi.mock("./pace", () => ({ usePaced: (text: string) => text }));

const place = document.createElement("div");
document.body.append(place);

afterEach(() => render(null, place));

/** KaTeX and the grammars are loaded when they are first needed: after this they are there. */
beforeAll(async () => {
  const formula = document.createElement("span");
  show(formula, { tex: "x", display: false, source: "x" });
  await vi.waitUntil(() => formula.querySelector(".katex"), { timeout: 60_000 });
}, 60_000);

async function shown(text: string, streaming = false): Promise<HTMLElement> {
  await shownIn(place, text, streaming);
  return place;
}

async function shownIn(root: Element, text: string, streaming: boolean): Promise<void> {
  await act(() => render(<Markdown text={text} streaming={streaming} />, root));
  await vi.waitUntil(() => waitingFormulas() === 0, { timeout: 60_000, interval: 1 });
}

const TAGS = new Set(
  "A BDI BLOCKQUOTE BR BUTTON CODE DEL DIV EM H3 H4 H5 H6 HR LI OL P PRE SPAN STRONG TABLE TBODY TD TH THEAD TR UL".split(" "),
);
const ATTRIBUTES = new Set("class role aria-label title type scope start tabindex data-scrolls href rel target".split(" "));

/** What must hold for whatever an answer says. */
function isHarmless(root: Element): void {
  for (const element of root.querySelectorAll("*")) {
    const typesetByKatex = element.closest(".katex") !== null;
    const isIcon = element.closest("button svg") !== null;
    for (const name of element.getAttributeNames()) {
      expect(name).not.toMatch(/^on|^src|^srcset|^id$|^name$|^action|^xlink/i);
      if (!typesetByKatex && !isIcon) expect(ATTRIBUTES).toContain(name);
    }
    if (typesetByKatex) {
      expect(element.matches("a, img, script, style, iframe, object, embed, use, image, foreignObject, maction, [href]")).toBe(false);
      expect(element.getAttribute("style") ?? "").not.toMatch(/url|expression|position:\s*(fixed|sticky)/i);
    } else if (!isIcon) expect(TAGS).toContain(element.tagName);
    if (element.tagName === "A") isHarmlessLink(element as HTMLAnchorElement);
  }
}

function isHarmlessLink(link: HTMLAnchorElement): void {
  expect(link.getAttribute("href")).toMatch(/^(https?:\/\/[^/]|mailto:.)/);
  expect(link.getAttribute("rel")).toBe("noopener noreferrer");
  expect(link.getAttribute("target")).toBe("_blank");
  expect(link.getAttribute("href")).not.toMatch(/["<>\s]/);
}

describe("an answer can put nothing into the page but its text", () => {
  test.each(ATTACKS.map((text) => [text.length > 80 ? `${text.slice(0, 77)}…` : text, text]))("%j", async (_name, text) => {
    isHarmless(await shown(text));
    isHarmless(await shown(text, true));
  });

  test("nor while it streams", async () => {
    for (const text of ATTACKS.filter((attack) => attack.length < 200)) {
      for (let end = 1; end < text.length; end += 3) isHarmless(await shown(text.slice(0, end), true));
    }
  });

  test("and none of its text is lost", async () => {
    for (const html of ATTACKS.filter((attack) => attack.startsWith("<") && !/[&:[`]/.test(attack))) {
      expect((await shown(html)).textContent?.replace(/\s/g, "")).toBe(html.replace(/\s/g, ""));
    }
    for (const mark of ["- ", "> ", "1. "]) expect((await shown(`${mark.repeat(300)}the end`)).textContent).toContain("the end");
  });

  test("a definition in one formula does not change the next one", async () => {
    const formula = (await shown("\\(\\gdef\\alpha{owned}\\)\n\n\\(\\alpha\\)")).querySelectorAll(".katex-html");
    expect(formula[1]?.textContent).toBe("α");
  });

  test("a formula is at most fifty em large", async () => {
    const styles = [...(await shown("\\(\\rule{1000000em}{1000000em}\\)")).querySelectorAll("[style]")].map((element) => element.getAttribute("style"));
    for (const [, size] of styles.join(";").matchAll(/([\d.]+)em/g)) expect(Number(size)).toBeLessThanOrEqual(51);
  });
});

describe("a formula", () => {
  test("that KaTeX cannot read is shown as it was written", async () => {
    for (const source of ["\\(\\frac{1}\\)", "\\(\\begin{x}\\)", "$$\\left( x$$", "\\(}\\)"]) expect((await shown(source)).textContent).toBe(source);
  });

  test("with one unknown command shows the rest as a formula", async () => {
    expect((await shown("\\(x^2 + \\unheardof\\)")).querySelector(".katex")?.textContent).toContain("unheardof");
  });

  test("never shows an error while it arrives", async () => {
    const text = "so \\(\\frac{a}{b}\\) and $$\\sqrt{x}$$ and $\\alpha$ and \\boxed{4}";
    for (let end = 1; end <= text.length; end++) {
      const root = await shown(text.slice(0, end), true);
      expect(root.querySelector(".katex-error")).toBeNull();
    }
    expect(place.querySelectorAll(".katex-mathml")).toHaveLength(4);
  });

  test("is read out by its MathML", async () => {
    expect((await shown("$x^2$")).querySelector(".katex-mathml math annotation")?.textContent).toBe("x^2");
    expect(place.querySelector(".katex-html")?.getAttribute("aria-hidden")).toBe("true");
  });

  test("is typeset without an exception, whatever it is", () => {
    for (const tex of ["\\", "^", "_", "{", "&", "#", "%", "\\text{", "\\\\", "~"]) typeset(tex, true, document.createElement("span"));
  });
});

const EXAMPLE = readFileSync("src/text/answer.example.md", "utf8");

describe("the page while a text streams", () => {
  test("is at every moment the page that its beginning makes at once", async () => {
    const other = document.createElement("div");
    for (let end = 1; end <= EXAMPLE.length; end += 7) {
      await shown(EXAMPLE.slice(0, end), true);
      await shownIn(other, EXAMPLE.slice(0, end), false);
      await vi.waitUntil(() => place.innerHTML === other.innerHTML, { timeout: 60_000, interval: 1 }).catch(() => undefined);
      expect(place.innerHTML).toBe(other.innerHTML); // the colours of code come a little later
      render(null, other);
    }
  });

  test("keeps the elements of finished blocks", async () => {
    const known = new Map<number, Element>();
    for (let end = 1; end <= EXAMPLE.length; end += 5) {
      const root = (await shown(EXAMPLE.slice(0, end), true)).firstElementChild;
      const finished = (root?.children.length ?? 0) - 2;
      for (let index = 0; index < finished; index++) {
        const element = root?.children[index];
        if (element && known.has(index)) expect(element).toBe(known.get(index));
        if (element) known.set(index, element);
      }
    }
    const before = [...place.querySelectorAll("*")];
    await shown(EXAMPLE, true);
    const root = (await shown(EXAMPLE, false)).firstElementChild;
    for (const [index, element] of known) expect(root?.children[index]).toBe(element);
    expect(before.filter((element) => !element.isConnected).length).toBeLessThan(20);
    expect(known.size).toBeGreaterThan(10);
  });

  test("changes no element of finished blocks", async () => {
    await shown(EXAMPLE.slice(0, 900), true);
    await vi.waitUntil(() => place.querySelector("pre span"), { timeout: 60_000 }); // the colours have come
    const changes: MutationRecord[] = [];
    const watcher = new MutationObserver((records) => changes.push(...records));
    const finished = [...(place.firstElementChild?.children ?? [])].slice(0, -2);
    for (const element of finished) watcher.observe(element, { subtree: true, childList: true, attributes: true, characterData: true });
    for (let end = 900; end <= EXAMPLE.indexOf("[1]:"); end += 3) await shown(EXAMPLE.slice(0, end), true);
    changes.push(...watcher.takeRecords());
    watcher.disconnect();
    expect(finished.length).toBeGreaterThan(5);
    expect(finished.every((element) => element.isConnected)).toBe(true);
    expect(changes).toHaveLength(0);
  });

  test("has few elements for a long text, and never more than characters", async () => {
    const long = EXAMPLE.repeat(Math.ceil(120_000 / EXAMPLE.length));
    const blocks = new Blocks().update(long, true);
    expect(blocks.length).toBeLessThan(long.length / 60);
    await shown(long);
    expect(place.querySelectorAll("*").length).toBeLessThan(60_000);
  });
});

describe("what is shown", () => {
  test("has a list of tasks with names", async () => {
    const marks = [...(await shown("- [x] a\n- [ ] b")).querySelectorAll("[role=img]")];
    expect(marks.map((mark) => mark.getAttribute("aria-label"))).toEqual(["Done:", "To do:"]);
  });

  test("has tables with heads and alignment", async () => {
    const root = await shown("| a | b |\n|--:|:-:|\n| 1 | ~~2~~ |");
    expect([...root.querySelectorAll("th")].map((cell) => `${cell.scope} ${cell.className}`)).toEqual(["col right", "col center"]);
    expect(root.querySelector("td del")?.textContent).toBe("2");
  });

  test("has code with its language, a button with a name and a label for its box", async () => {
    const root = await shown("```py\nx = 1\n```");
    expect(root.querySelector(".code-head span")?.textContent).toBe("Python");
    expect(root.querySelector("button")?.getAttribute("aria-label")).toBe("Copy");
    expect(root.querySelector("pre")?.getAttribute("aria-label")).toBe("Python code");
    await expect.poll(() => root.querySelector("pre .hljs-number")?.textContent).toBe("1");
    expect(root.querySelector("pre")?.textContent).toBe("x = 1");
  });

  test("has no colours in code that is still arriving", async () => {
    const root = await shown("```py\nx = 1\n", true);
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(root.querySelector("pre span")).toBeNull();
  });

  test("shows what hides in code", async () => {
    expect((await shown("```\na\u202eb\n```\n\n`c\u2066d`")).textContent).toContain("a⟨U+202E⟩bc⟨U+2066⟩d");
  });

  test("shows the host of a link whose words do not name it", async () => {
    expect((await shown("[here](https://a.example/x)")).textContent).toBe("here (a.example)");
    expect((await shown("<https://a.example/x>")).textContent).toBe("https://a.example/x");
    expect((await shown("![a cat](https://a.example/cat.png)")).textContent).toBe("a cat (a.example)");
  });

  test("has headings below those of the page", async () => {
    const root = await shown("# a\n\n###### b");
    expect([...root.querySelectorAll("h3, h6")].map((heading) => heading.className)).toEqual(["level-1", "level-6"]);
  });

  test("makes no heading of a line above a list or a rule that is arriving", async () => {
    for (const text of ["Steps:\n-", "Steps:\n---", "Steps:\n=", "Steps:\n==="]) expect((await shown(text, true)).querySelector("h3, h4")).toBeNull();
  });
});
