/** Changes a message in place. */
import { useEffect, useRef } from "preact/hooks";

import { words } from "../words";
import { isSendKey, useGrowth } from "./typing";

interface Props {
  text: string;
  onSend: (text: string) => void;
  onCancel: () => void;
}

export function Editor({ text, onSend, onCancel }: Props) {
  const w = words.value;
  const field = useRef<HTMLTextAreaElement>(null);
  useGrowth(field);
  useEffect(() => {
    field.current?.focus();
    field.current?.setSelectionRange(text.length, text.length);
  }, []);
  function send(): void {
    const changed = field.current?.value.trim();
    if (changed) onSend(changed);
  }
  function keyDown(event: KeyboardEvent): void {
    if (isSendKey(event)) {
      event.preventDefault();
      send();
    } else if (event.key === "Escape" && !event.isComposing) {
      event.stopPropagation();
      onCancel();
    }
  }
  return (
    <div class="editor">
      <textarea ref={field} rows={1} aria-label={w.message.editLabel} defaultValue={text} onKeyDown={keyDown} />
      <div class="editor-foot">
        <span>{w.message.editHint}</span>
        <button type="button" class="button" onClick={onCancel}>
          {w.message.cancel}
        </button>
        <button type="button" class="button primary" onClick={send}>
          {w.message.send}
        </button>
      </div>
    </div>
  );
}
