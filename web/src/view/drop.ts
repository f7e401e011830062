/** Files that are dropped on the page. */
import { useEffect, useState } from "preact/hooks";

import { attachFiles } from "./files";

/** They may be dropped anywhere; says whether some are over the page now. */
export function useDrop(): boolean {
  const [over, setOver] = useState(false);
  useEffect(() => {
    const has = (event: DragEvent): boolean => event.dataTransfer?.types.includes("Files") ?? false;
    const drag = (event: DragEvent): void => {
      if (!has(event)) return;
      event.preventDefault();
      setOver(true);
    };
    const leave = (event: DragEvent): void => {
      if (event.relatedTarget === null) setOver(false);
    };
    const drop = (event: DragEvent): void => {
      if (!has(event)) return;
      event.preventDefault();
      setOver(false);
      void attachFiles([...(event.dataTransfer?.files ?? [])]);
    };
    const handlers = { dragover: drag, dragleave: leave, drop };
    for (const [name, handler] of Object.entries(handlers)) document.addEventListener(name, handler as EventListener);
    return () => {
      for (const [name, handler] of Object.entries(handlers)) document.removeEventListener(name, handler as EventListener);
    };
  }, []);
  return over;
}
