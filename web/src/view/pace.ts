/**
 * How often a growing text is shown again: after a change that took long, the next one waits. So a text of any shape, even one huge
 * paragraph, leaves most of the time to the reader. A text that is complete is shown at once.
 */
import type { RefObject } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";

const REST = 4; // times as long as a change took
const SHORT = 8; // milliseconds: a change that needs no rest

export class Pace {
  private shown: string | null = null;
  private due = 0;
  private began = 0;

  constructor(private readonly now: () => number = () => performance.now()) {}

  /** The text to show now, and how many milliseconds later to ask again: null if it is the latest. */
  next(text: string, streaming: boolean): { text: string; wait: number | null } {
    this.began = this.now();
    if (this.shown === null || !streaming || this.due <= this.began) this.shown = text;
    return { text: this.shown, wait: this.shown === text ? null : this.due - this.began };
  }

  /** The text that `next` gave is on the page, and laid out. */
  changed(): void {
    const took = this.now() - this.began;
    this.due = took > SHORT ? this.now() + REST * took : 0;
  }
}

/** The text that the element should show now. */
export function usePaced(text: string, streaming: boolean, element: RefObject<HTMLElement | null>): string {
  const [, wake] = useState(0);
  const pace = useRef<Pace | null>(null);
  pace.current ??= new Pace();
  const { text: shown, wait } = pace.current.next(text, streaming);
  useEffect(() => {
    if (wait === null) return undefined;
    const timer = setTimeout(() => wake((count) => count + 1), wait);
    return () => clearTimeout(timer);
  });
  useLayoutEffect(() => {
    void element.current?.offsetHeight; // lays out what the browser would lay out soon anyway, so that its time counts
    pace.current?.changed();
  }, [shown]);
  return shown;
}
