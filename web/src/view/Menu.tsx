/** A button that opens a small panel beside it: light to dismiss, Escape closes it, focus comes back to the button. */
import type { ComponentChildren } from "preact";
import { useId, useLayoutEffect, useRef, useState } from "preact/hooks";

interface Props {
  label: string;
  button: ComponentChildren;
  children: ComponentChildren | ((close: () => void) => ComponentChildren);
  buttonClass?: string;
  panelClass?: string;
  pressed?: boolean;
}

const GAP = 6; // pixels between the button, the panel and the window's edge

export function Menu({ label, button, children, buttonClass = "tool", panelClass = "", pressed }: Props) {
  const id = useId();
  const [open, setOpen] = useState(false);
  const opener = useRef<HTMLButtonElement>(null);
  const panel = useRef<HTMLDivElement>(null);
  const close = (): void => panel.current?.hidePopover();

  useLayoutEffect(() => {
    const box = panel.current;
    if (!open || !box || !opener.current) return undefined;
    place(box, opener.current.getBoundingClientRect());
    box.querySelector<HTMLElement>("button, input")?.focus();
    box.addEventListener("keydown", moveFocus);
    return () => box.removeEventListener("keydown", moveFocus);
  }, [open]);

  return (
    <>
      <button
        ref={opener}
        type="button"
        class={buttonClass}
        aria-label={label}
        aria-expanded={open}
        title={label}
        data-on={pressed}
        popovertarget={id}
      >
        {button}
      </button>
      <div ref={panel} id={id} popover="auto" class={`menu ${panelClass}`} onToggle={(event) => setOpen(event.newState === "open")}>
        {open && (typeof children === "function" ? children(close) : children)}
      </div>
    </>
  );
}

/** Puts the panel above or below the button, where there is room, and inside the window. */
function place(panel: HTMLElement, at: DOMRect): void {
  const { offsetWidth: width, offsetHeight: height } = panel;
  const right = document.documentElement.clientWidth; // without the scrollbar
  const below = at.bottom + GAP + height <= window.innerHeight - GAP;
  const top = below ? at.bottom + GAP : Math.max(GAP, at.top - GAP - height);
  const left = at.left + width <= right - GAP ? at.left : at.right - width;
  panel.style.top = `${top}px`;
  panel.style.left = `${Math.max(GAP, Math.min(left, right - width - GAP))}px`;
}

function moveFocus(event: KeyboardEvent): void {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  const items = [...(event.currentTarget as HTMLElement).querySelectorAll<HTMLElement>(":scope > button")];
  if (!step || !items.length) return;
  event.preventDefault();
  const at = items.indexOf(document.activeElement as HTMLElement);
  items[(at + step + items.length) % items.length]?.focus();
}
