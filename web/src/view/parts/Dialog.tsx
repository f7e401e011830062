/** A modal dialog: the browser's own, with a title, a button that closes it and a place for actions at its end. */
import type { ComponentChildren, RefObject } from "preact";
import { useEffect, useId, useLayoutEffect, useRef } from "preact/hooks";

import "../../style/dialog.css";
import { words } from "../../words";
import { Icon } from "../icons";

interface Props {
  title: string;
  onClose: () => void;
  children: ComponentChildren;
  actions?: ComponentChildren;
  size?: "small" | "wide";
}

/** Shows the dialog as a modal one. Escape and a click beside it close it; both only ask the component to do so. */
function useModal(ref: RefObject<HTMLDialogElement | null>, onClose: () => void): void {
  useLayoutEffect(() => {
    const dialog = ref.current;
    dialog?.showModal();
    const first = dialog?.querySelector<HTMLElement>(".dialog-body [autofocus]") ?? dialog?.querySelector("h2");
    first?.focus();
    return () => dialog?.close(); // before it is removed, so that the focus goes back to where it was
  }, [ref]);
  useEffect(() => {
    const dialog = ref.current;
    const listeners = new AbortController();
    const { signal } = listeners;
    let pressed = false; // a press that began inside, such as a selection of text, does not close it when it ends outside
    const press = (event: Event) => (pressed = event.target === dialog);
    const click = (event: Event) => pressed && event.target === dialog && onClose();
    const cancel = (event: Event) => {
      if (event.target !== dialog) return; // a file chooser inside was cancelled
      event.preventDefault();
      onClose();
    };
    dialog?.addEventListener("pointerdown", press, { signal });
    dialog?.addEventListener("click", click, { signal });
    dialog?.addEventListener("cancel", cancel, { signal });
    return () => listeners.abort();
  }, [ref, onClose]);
}

export function Dialog({ title, onClose, children, actions, size }: Props) {
  const ref = useRef<HTMLDialogElement>(null);
  const label = useId();
  useModal(ref, onClose);
  return (
    <dialog ref={ref} class={`dialog ${size ?? ""}`} aria-labelledby={label}>
      <div class="dialog-inner">
        <header class="dialog-head">
          <h2 id={label} tabIndex={-1}>
            {title}
          </h2>
          <button type="button" class="tool" aria-label={words.value.extras.close} onClick={onClose}>
            <Icon name="close" />
          </button>
        </header>
        <div class="dialog-body">{children}</div>
        {actions && <footer class="dialog-actions">{actions}</footer>}
      </div>
    </dialog>
  );
}

/** Asks before something that cannot be undone. */
export function Confirm(props: {
  title: string;
  question: string;
  yes: string;
  no: string;
  onYes: () => void;
  onNo: () => void;
}) {
  return (
    <Dialog
      title={props.title}
      onClose={props.onNo}
      size="small"
      actions={
        <>
          <button type="button" class="button" onClick={props.onNo}>
            {props.no}
          </button>
          <button type="button" class="button bad" onClick={props.onYes}>
            {props.yes}
          </button>
        </>
      }
    >
      <p>{props.question}</p>
    </Dialog>
  );
}
