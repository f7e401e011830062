/** KaTeX, loaded when the first formula is shown: its script, its style and, by the browser, the fonts that are used. */
import katex from "katex";
import "katex/dist/katex.min.css";

const OPTIONS = {
  throwOnError: false,
  errorColor: "inherit",
  strict: "ignore", // the default writes to the console
  trust: false, // no links, images, classes or styles from a formula
  maxExpand: 1000,
  maxSize: 50, // em
} as const;

/** What KaTeX makes of a formula before it makes elements of it. */
interface Tree {
  classes?: string[];
  attributes?: Record<string, string>;
  children?: Tree[];
  toNode(): Node;
}

const { __renderToDomTree: treeOf } = katex as unknown as { __renderToDomTree(tex: string, options: object): Tree };

/** Typesets into an element. False if KaTeX cannot read the formula: the element then holds nothing of use. */
export function typeset(tex: string, display: boolean, element: HTMLElement): boolean {
  try {
    const tree = treeOf(tex, { ...OPTIONS, displayMode: display });
    if (tree.classes?.includes("katex-error")) return false;
    setStylesApart(tree);
    element.replaceChildren(tree.toNode());
    for (const styled of element.querySelectorAll<SVGElement>(`[${STYLE}]`)) {
      styled.style.cssText = styled.getAttribute(STYLE) ?? "";
      styled.removeAttribute(STYLE);
    }
    return true;
  } catch {
    return false; // for instance a stack overflow: the formula comes from a stranger
  }
}

const STYLE = "data-style";

/** KaTeX writes a few styles as attributes, which the page's policy forbids. As properties they are allowed. */
function setStylesApart({ attributes, children }: Tree): void {
  if (attributes?.style !== undefined) {
    attributes[STYLE] = attributes.style;
    delete attributes.style;
  }
  children?.forEach(setStylesApart);
}
