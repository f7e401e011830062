/** A native dialog that opens as it is drawn. A click beside it closes it; the browser does the same for Escape. */
import type { RefObject } from "preact";
import { useLayoutEffect, useRef } from "preact/hooks";

export function useModal(): RefObject<HTMLDialogElement> {
  const frame = useRef<HTMLDialogElement>(null);
  useLayoutEffect(() => {
    const dialog = frame.current;
    dialog?.showModal();
    dialog?.addEventListener("click", (event) => {
      if (event.target === dialog) dialog.close(); // the backdrop belongs to the dialog
    });
    return () => dialog?.close(); // before it is removed, so that the focus goes back to where it was
  }, []);
  return frame as RefObject<HTMLDialogElement>;
}
