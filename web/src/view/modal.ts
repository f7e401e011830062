/** A native dialog that opens as it is drawn, and closes by Escape or by a click beside it. */
import type { RefObject } from "preact";
import { useEffect, useRef } from "preact/hooks";

export function useModal(): RefObject<HTMLDialogElement> {
  const frame = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    const dialog = frame.current;
    dialog?.showModal();
    dialog?.addEventListener("click", (event) => {
      if (event.target === dialog) dialog.close(); // the backdrop belongs to the dialog
    });
  }, []);
  return frame as RefObject<HTMLDialogElement>;
}
