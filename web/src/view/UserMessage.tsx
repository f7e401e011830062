/** What the user said, with its files; it can be changed in place, which makes another version of it. */
import { useRef, useState } from "preact/hooks";

import type { Message } from "../state/conversation";
import { editAndSend } from "../state/generation";
import { words } from "../words";
import { Chips } from "./Chips";
import { CopyButton } from "./CopyButton";
import { backToComposer } from "./composing";
import { Editor } from "./Editor";
import { removeWithUndo } from "./removal";
import { ToolButton } from "./ToolButton";
import { Versions } from "./Versions";

export function UserMessage({ message }: { message: Message }) {
  const w = words.value;
  const [editing, setEditing] = useState(false);
  const files = message.attachments ?? [];
  const frame = useRef<HTMLDivElement>(null);
  function sendAgain(text: string): void {
    setEditing(false);
    editAndSend(message.id, text, files);
    backToComposer();
  }
  function cancel(): void {
    setEditing(false);
    requestAnimationFrame(() => frame.current?.querySelector<HTMLElement>('[data-name="edit"]')?.focus());
  }
  return (
    <>
      <h2 class="unseen">{w.message.you}</h2>
      <Chips attachments={files} />
      {editing ? (
        <Editor text={message.text} onSend={sendAgain} onCancel={cancel} />
      ) : (
        <>
          <div class="bubble">{message.text}</div>
          <div class="under" ref={frame}>
            <span class="quiet">
              <CopyButton text={message.text} />
              <ToolButton icon="edit" name="edit" label={w.message.edit} onClick={() => setEditing(true)} />
              <ToolButton icon="trash" label={w.message.remove} onClick={() => removeWithUndo(message.id)} />
            </span>
            <Versions id={message.id} />
          </div>
        </>
      )}
    </>
  );
}
