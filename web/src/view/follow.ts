/**
 * Keeps the end of the conversation in sight while the reader is there. A reader who scrolls up stays where they are; who
 * comes back to the end is followed again.
 */
import { signal } from "@preact/signals";
import type { RefObject } from "preact";
import { useEffect } from "preact/hooks";

const NEAR = 24; // pixels from the end that count as the end

/** Whether the reader is at the end. */
export const following = signal(true);

const distance = (): number => {
  const page = document.documentElement;
  return page.scrollHeight - page.clientHeight - window.scrollY;
};

export function toEnd(): void {
  following.value = true;
  window.scrollTo({ top: document.documentElement.scrollHeight, behavior: "instant" });
}

export function toStart(): void {
  following.value = true; // nothing is below
  window.scrollTo({ top: 0, behavior: "instant" });
}

export function useFollowing(content: RefObject<HTMLElement | null>): void {
  useEffect(() => {
    let last = window.scrollY;
    const scrolled = (): void => {
      const now = window.scrollY;
      if (distance() <= NEAR) following.value = true;
      else if (now < last - 1) following.value = false; // content that grows never moves the page up: the reader did
      last = now;
    };
    const grown = new ResizeObserver(() => {
      if (following.value && content.current?.dataset["follow"] && distance() > 1) toEnd();
    });
    window.addEventListener("scroll", scrolled, { passive: true });
    grown.observe(document.body); // also the box below grows
    return () => {
      window.removeEventListener("scroll", scrolled);
      grown.disconnect();
    };
  }, []);
}
