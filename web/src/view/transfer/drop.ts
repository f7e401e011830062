/** Lets files be dropped on an element. */
import type { RefObject } from "preact";
import { useEffect, useState } from "preact/hooks";

/** Whether files are over the element now; `onFiles` gets those that are dropped, and nothing around it does. */
export function useDrop(ref: RefObject<HTMLElement | null>, onFiles: (files: Iterable<File>) => unknown): boolean {
  const [over, setOver] = useState(false);
  useEffect(() => {
    const element = ref.current;
    const listeners = new AbortController();
    const { signal } = listeners;
    const taken = (event: DragEvent, isOver: boolean) => {
      event.preventDefault();
      event.stopPropagation();
      setOver(isOver);
    };
    const drop = (event: DragEvent) => {
      taken(event, false);
      if (event.dataTransfer) onFiles(event.dataTransfer.files);
    };
    element?.addEventListener("dragover", (event) => taken(event, true), { signal });
    element?.addEventListener("dragleave", (event) => taken(event, false), { signal });
    element?.addEventListener("drop", drop, { signal });
    return () => listeners.abort();
  }, [ref, onFiles]);
  return over;
}
