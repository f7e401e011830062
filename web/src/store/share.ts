/**
 * One self-contained HTML file of a conversation, to be shared: what is shown, its style, and no script.
 *
 * It is built as a document of known elements and then serialized. Its own policy allows its style, by hash, and nothing else.
 * Formulas are kept as MathML, which needs neither fonts nor styles of its own.
 */
import { titleOf, type Conversation } from "../state/conversation";
import { sha256 } from "./sha256";

const KEPT: ReadonlySet<string> = new Set(
  ("a abbr article b blockquote br caption code dd del details div dl dt em figcaption figure footer h1 h2 h3 h4 h5 h6 header hr " +
    "i kbd li main mark math ol p pre s section small span strong sub summary sup table tbody td tfoot th thead time tr u ul " +
    "annotation semantics mrow mi mn mo ms mtext mspace mfrac msqrt mroot msub msup msubsup munder mover munderover mtable mtr " +
    "mtd mstyle mpadded mphantom menclose").split(" "),
);
const DROPPED: ReadonlySet<string> = new Set(
  "button input textarea select option form script style link meta dialog svg iframe object embed img video audio canvas".split(" "),
);
const ATTRIBUTES: ReadonlySet<string> = new Set(
  ("class lang dir open colspan rowspan start title encoding display mathvariant displaystyle scriptlevel stretchy fence separator " +
    "minsize maxsize lspace rspace width height depth voffset columnalign rowspacing columnspacing accent accentunder linethickness " +
    "notation").split(" "),
);
const SHARED_STYLE = /:root|\.prose|\.hljs|\.code/u;
const BASE = `
body { margin: 0 auto; max-width: 46rem; padding: 1.5rem 1rem 4rem; line-height: 1.6; font-family: var(--sans, sans-serif); }
h2 { margin: 2rem 0 0.5rem; font-size: 1rem; opacity: 0.7; }
pre, .said { white-space: pre-wrap; overflow-wrap: anywhere; }
table { border-collapse: collapse; } th, td { padding: 0.25rem 0.75rem; border: 1px solid #8886; }
details { margin: 0.5rem 0; opacity: 0.85; } summary { cursor: pointer; }
math[display="block"] { margin: 0.75rem 0; overflow-x: auto; }
.to-left { text-align: left; } .to-center { text-align: center; } .to-right { text-align: right; }
`;
const HEAD_ENDS = "</head>";

/** The file; `rendered` are the messages as they are shown. */
export function shareFile(conversation: Conversation, rendered: HTMLElement[]): Blob {
  const style = BASE + sharedRules([...document.styleSheets].flatMap(rulesOf)).join("\n").replaceAll("</", "");
  const page = document.implementation.createHTMLDocument("");
  page.documentElement.lang = document.documentElement.lang;
  const policy = `default-src 'none'; style-src 'sha256-${sha256(style)}'; base-uri 'none'; form-action 'none'`;
  page.head.prepend(
    meta(page, { charset: "utf-8" }),
    meta(page, { "http-equiv": "Content-Security-Policy", content: policy }),
    meta(page, { name: "viewport", content: "width=device-width" }),
  );
  page.title = printable(titleOf(conversation));
  const main = page.createElement("main");
  main.append(...rendered.flatMap((each) => copy(each, page)));
  page.body.append(main);
  // The style is put in as text: the document inherits the page's policy, which allows no element of style, and a
  // serializer of XML would escape the style's ">", which HTML reads as it is.
  const [head = "", ...rest] = new XMLSerializer().serializeToString(page).split(HEAD_ENDS);
  const parts = ["<!doctype html>\n", head, "<style>", style, "</style>", HEAD_ENDS, rest.join(HEAD_ENDS)];
  return new Blob(parts, { type: "text/html;charset=utf-8" });
}

/** The element with what a reader sees of it: known elements and attributes, and links that are safe. */
function copy(element: Element, page: Document): Element[] {
  const name = element.localName;
  if (DROPPED.has(name) || element.classList.contains("katex-html")) return [];
  const made = page.createElementNS(element.namespaceURI, KEPT.has(name) ? name : "span");
  for (const { name: attribute, value } of element.attributes) {
    if (ATTRIBUTES.has(attribute)) made.setAttribute(attribute, value);
  }
  if (element.classList.contains("katex-mathml")) made.removeAttribute("class"); // the page hides it from the eye
  const href = element.getAttribute("href");
  if (name === "a" && href !== null && /^(?:https?:|mailto:)/iu.test(href)) {
    made.setAttribute("href", href);
    made.setAttribute("rel", "noopener noreferrer");
  }
  const side = (element as HTMLElement).style?.textAlign ?? "";
  if (/^(?:left|center|right)$/u.test(side)) made.classList.add(`to-${side}`);
  for (const child of element.childNodes) {
    if (child.nodeType === Node.TEXT_NODE) made.append(page.createTextNode(printable(child.textContent ?? "")));
    else if (child.nodeType === Node.ELEMENT_NODE) made.append(...copy(child as Element, page));
  }
  return [made];
}

/** XML has no control characters: with one of them the file could not be written. */
function printable(text: string): string {
  // oxlint-disable-next-line no-control-regex
  return text.replaceAll(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]|\p{Surrogate}/gu, "\ufffd");
}

function meta(page: Document, attributes: Record<string, string>): HTMLMetaElement {
  const element = page.createElement("meta");
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

function rulesOf(sheet: CSSStyleSheet): CSSRule[] {
  return [...sheet.cssRules];
}

/** The page's own rules for colours and for text, without what they load. */
function sharedRules(rules: CSSRule[]): string[] {
  return rules.flatMap((rule): string[] => {
    if ("selectorText" in rule) {
      const isShared = SHARED_STYLE.test(String(rule.selectorText)) && !/url\(/iu.test(rule.cssText);
      return isShared ? [rule.cssText] : [];
    }
    if (!("conditionText" in rule)) return [];
    const inner = sharedRules([...(rule as CSSMediaRule).cssRules]);
    return inner.length > 0 ? [`@media ${String(rule.conditionText)} {\n${inner.join("\n")}\n}`] : [];
  });
}
