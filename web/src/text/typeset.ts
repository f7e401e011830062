/**
 * When formulas are typeset: at once as long as a frame has room, and otherwise a few at a time, so that an answer full of formulas
 * does not stop the page. Until then the formula's source is shown, as it is for what KaTeX cannot read.
 */

export interface Wanted {
  tex: string;
  display: boolean;
  source: string;
}

type Typeset = typeof import("./katex").typeset;

const SLICE = 8; // milliseconds at a time
const DEEPEST = 100; // of braces and the like: KaTeX calls itself for each

let typeset: Typeset | null = null;
let loading: Promise<void> | null = null;
const waiting = new Map<HTMLElement, Wanted>();
let spent = 0;
let sliceBegan = -Infinity;
let scheduled = false;

/** Shows a formula in an element, now or soon. Another call for the same element replaces what was wanted. */
export function show(element: HTMLElement, wanted: Wanted): void {
  waiting.delete(element);
  if (isTooDeep(wanted.tex)) element.textContent = wanted.source;
  else if (typeset && hasRoom()) set(element, wanted);
  else {
    element.textContent = wanted.source;
    waiting.set(element, wanted);
    if (typeset) schedule();
    else load();
  }
}

/** The element is gone. */
export function forget(element: HTMLElement): void {
  waiting.delete(element);
}

/** How many formulas are still shown as their source, to be typeset. */
export function waitingFormulas(): number {
  return waiting.size;
}

/** Whether groups are nested deeper than KaTeX, which is recursive, should be asked for. */
export function isTooDeep(tex: string): boolean {
  let depth = 0;
  for (const [mark] of tex.matchAll(/\\(?:left|begin|right|end)\b|\\.|[{}]|[\^_]|\s+|[^]/g)) {
    if (mark === "{" || mark === "\\left" || mark === "\\begin") depth++;
    else if (mark === "}" || mark === "\\right" || mark === "\\end") depth--;
    if (depth > DEEPEST) return true;
  }
  return false;
}

function hasRoom(): boolean {
  if (performance.now() - sliceBegan > 2 * SLICE) spent = 0;
  return spent < SLICE;
}

function set(element: HTMLElement, wanted: Wanted): void {
  const began = performance.now();
  if (spent === 0) sliceBegan = began;
  if (!typeset?.(wanted.tex, wanted.display, element)) element.textContent = wanted.source;
  spent += performance.now() - began;
}

function load(): void {
  loading ??= import("./katex").then(
    (loaded) => {
      typeset = loaded.typeset;
      schedule();
    },
    () => {
      loading = null; // the server was away: the next formula tries again
    },
  );
}

function schedule(): void {
  if (scheduled) return;
  scheduled = true;
  setTimeout(work, 0);
}

function work(): void {
  scheduled = false;
  spent = 0;
  for (const [element, wanted] of waiting) {
    if (!hasRoom()) break;
    waiting.delete(element);
    set(element, wanted);
  }
  if (waiting.size) schedule();
}
