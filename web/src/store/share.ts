/**
 * One self-contained HTML file of a conversation, to be shared: what is shown, its style, and no script.
 *
 * It is built as a document and serialized, never from strings. Its own policy allows nothing but its style.
 */
import { titleOf, type Conversation } from "../state/conversation";

const POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";
const KEPT: ReadonlySet<string> = new Set(
  ("a abbr article b blockquote br caption code dd del details div dl dt em figure footer h1 h2 h3 h4 h5 h6 header hr i kbd li " +
    "main mark math ol p pre s section small span strong sub summary sup table tbody td tfoot th thead time tr u ul var " +
    "annotation semantics mrow mi mn mo ms mtext mspace mfrac msqrt mroot msub msup msubsup munder mover munderover mtable " +
    "mtr mtd mstyle mpadded mphantom menclose").split(" "),
);
const ATTRIBUTES: ReadonlySet<string> = new Set(["class", "lang", "dir", "open", "colspan", "rowspan", "start", "title"]);

/** The file; `rendered` are the messages as they are shown. */
export function shareFile(conversation: Conversation, rendered: HTMLElement[]): Blob {
  const page = document.implementation.createHTMLDocument(titleOf(conversation));
  page.documentElement.lang = document.documentElement.lang;
  const policy = page.createElement("meta");
  policy.setAttribute("http-equiv", "Content-Security-Policy");
  policy.setAttribute("content", POLICY);
  const charset = page.createElement("meta");
  charset.setAttribute("charset", "utf-8");
  const width = page.createElement("meta");
  width.setAttribute("name", "viewport");
  width.setAttribute("content", "width=device-width");
  const style = page.createElement("style");
  style.textContent = sheets();
  page.head.prepend(charset, policy, width);
  page.head.append(style);
  const main = page.createElement("main");
  main.append(...rendered.map((element) => copy(element, page)));
  page.body.append(main);
  return new Blob(["<!doctype html>\n", new XMLSerializer().serializeToString(page)], { type: "text/html;charset=utf-8" });
}

/** The element with what a reader sees of it: known elements and attributes, and links that are safe. */
function copy(element: Element, page: Document): Element {
  const name = element.localName;
  const made = page.createElementNS(element.namespaceURI, KEPT.has(name) ? name : "span");
  for (const { name: attribute, value } of element.attributes) {
    if (ATTRIBUTES.has(attribute)) made.setAttribute(attribute, value);
  }
  const href = element.getAttribute("href");
  if (name === "a" && href !== null && /^(?:https?:|mailto:)/iu.test(href)) {
    made.setAttribute("href", href);
    made.setAttribute("rel", "noopener noreferrer");
  }
  copyStyle(element, made);
  for (const child of element.childNodes) {
    if (child.nodeType === Node.TEXT_NODE) made.append(page.createTextNode(child.textContent ?? ""));
    else if (child instanceof Element && !isControl(child)) made.append(copy(child, page));
  }
  return made;
}

/** KaTeX places its boxes by styles of their own. */
function copyStyle(from: Element, to: Element): void {
  const { style } = from as HTMLElement;
  const text = style?.cssText ?? "";
  if (text !== "" && !/url\(|expression|@import/iu.test(text)) to.setAttribute("style", text);
}

function isControl(element: Element): boolean {
  return ["button", "input", "textarea", "select", "script", "style", "dialog", "svg", "iframe", "img"].includes(element.localName);
}

/** The page's own rules, without what they load. */
function sheets(): string {
  const rules = [...document.styleSheets].flatMap((sheet) => [...sheet.cssRules]);
  const kept = rules.filter((rule) => !(rule instanceof CSSFontFaceRule) && !(rule instanceof CSSImportRule));
  return kept.map((rule) => rule.cssText).filter((text) => !/url\(/iu.test(text)).join("\n");
}
