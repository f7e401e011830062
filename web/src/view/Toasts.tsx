/** Short messages above the composer. They go by themselves, later if something can be undone, never under the pointer. */
import { useEffect, useState } from "preact/hooks";

import { words } from "../words";
import { backToComposer } from "./composing";
import { Icon } from "./icons";
import { dismiss, toasts, type Toast } from "./ui";

const SHORT = 5000; // milliseconds
const LONG = 12_000;

export function Toasts() {
  return (
    <div class="toasts" role="status">
      {toasts.value.map((each) => (
        <One key={each.id} toast={each} />
      ))}
    </div>
  );
}

function One({ toast }: { toast: Toast }) {
  const w = words.value;
  const [held, hold] = useState(false);
  const { id, text, action } = toast;
  useEffect(() => {
    if (held) return undefined;
    const timer = window.setTimeout(() => dismiss(id), action ? LONG : SHORT);
    return () => window.clearTimeout(timer);
  }, [held]);
  function act(): void {
    action?.run();
    dismiss(id);
    backToComposer();
  }
  return (
    <div
      class="toast"
      onPointerEnter={() => hold(true)}
      onPointerLeave={() => hold(false)}
      onFocusIn={() => hold(true)}
      onFocusOut={() => hold(false)}
    >
      <span>{text}</span>
      {action ? (
        <button type="button" onClick={act}>
          {action.label}
        </button>
      ) : (
        <button type="button" aria-label={w.page.close} onClick={() => dismiss(id)}>
          <Icon name="close" />
        </button>
      )}
    </div>
  );
}
