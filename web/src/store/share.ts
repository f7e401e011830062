/**
 * One self-contained HTML file of a conversation, to be shared: what is shown, its style, and no script.
 *
 * It is built as a document and serialized; only the style is put in as text, since the page's policy, which the document
 * inherits, allows no element or attribute of style. The file's own policy allows nothing but its style.
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
  page.head.prepend(charset, policy, width);
  const main = page.createElement("main");
  const styles: Styles = new Map();
  main.append(...rendered.map((element) => copy(element, page, styles)));
  page.body.append(main);
  const [before, ...after] = new XMLSerializer().serializeToString(page).split("</head>");
  const parts = ["<!doctype html>\n", before ?? "", "<style>", asText(styles), "</style></head>", after.join("</head>")];
  return new Blob(parts, { type: "text/html;charset=utf-8" });
}

const SPECIFIC = 5; // more classes than a rule of KaTeX has, so that an element's own style wins as it does in the page

/** The names of classes for what elements have as styles of their own. */
type Styles = Map<string, string>;

/** The page's rules and those of single elements. Escaped, so that nothing in them ends the style. */
function asText(styles: Styles): string {
  const own = [...styles].map(([text, name]) => `${`.${name}`.repeat(SPECIFIC)}{${text}}`);
  return [sheets(), ...own].join("\n").replaceAll("</", "<\\/");
}

/** The element with what a reader sees of it: known elements and attributes, and links that are safe. */
function copy(element: Element, page: Document, styles: Styles): Element {
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
  copyStyle(element, made, styles);
  for (const child of element.childNodes) {
    if (child.nodeType === Node.TEXT_NODE) made.append(page.createTextNode(child.textContent ?? ""));
    else if (child instanceof Element && !isControl(child)) made.append(copy(child, page, styles));
  }
  return made;
}

/** KaTeX places its boxes by styles of their own. */
function copyStyle(from: Element, to: Element, styles: Styles): void {
  const { style } = from as HTMLElement;
  const text = style?.cssText ?? "";
  if (text === "" || /url\(|expression|@import|[{}]/iu.test(text)) return;
  const name = styles.get(text) ?? `own-${styles.size}`;
  styles.set(text, name);
  to.classList.add(name);
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
