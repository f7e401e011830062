/** Boxes that scroll sideways: the keyboard reaches those, and only those, in which something is out of sight. */
import type { RefObject } from "preact";
import { useLayoutEffect } from "preact/hooks";

let observer: ResizeObserver | null = null;

function update(box: Element): void {
  const scrolls = box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight;
  if (scrolls) box.setAttribute("tabindex", "0");
  else box.removeAttribute("tabindex");
}

/** Watches a box and what is in it. One observer serves the page; it reports after the layout, so nothing is laid out twice. */
export function useScrollable(box: RefObject<HTMLElement | null>): void {
  useLayoutEffect(() => {
    const element = box.current;
    if (!element || typeof ResizeObserver === "undefined") return undefined;
    observer ??= new ResizeObserver((entries) => {
      for (const { target } of entries) update(target.matches(SCROLLS) ? target : (target.parentElement ?? target));
    });
    const watched = [element, ...element.children];
    for (const each of watched) observer.observe(each);
    return () => watched.forEach((each) => observer?.unobserve(each));
  }, [box]);
}

const SCROLLS = "[data-scrolls]";
