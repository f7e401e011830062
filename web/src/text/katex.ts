/** KaTeX, loaded when the first formula is shown: its script, its style and, by the browser, the fonts that are used. */
import { render } from "katex";
import "katex/dist/katex.min.css";

const OPTIONS = {
  throwOnError: false,
  errorColor: "inherit",
  strict: "ignore", // the default writes to the console
  trust: false, // no links, images, classes or styles from a formula
  maxExpand: 1000,
  maxSize: 50, // em
} as const;

/** Typesets into an element. False if KaTeX cannot read the formula: the element then holds nothing of use. */
export function typeset(tex: string, display: boolean, element: HTMLElement): boolean {
  try {
    render(tex, element, { ...OPTIONS, displayMode: display });
    return element.querySelector(".katex-error") === null;
  } catch {
    return false; // for instance a stack overflow: the formula comes from a stranger
  }
}
