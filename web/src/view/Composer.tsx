/** Where a message is written: it grows with its text, keeps a draft for each conversation, takes files, sends and stops. */
import { useEffect, useRef } from "preact/hooks";

import { send, stop } from "../state/generation";
import { current } from "../state/conversations";
import { words } from "../words";
import { AddMenu } from "./AddMenu";
import { Chips } from "./Chips";
import { COMPOSER_ID, runningHere } from "./composing";
import { draft as drafted, setDraft } from "./drafts";
import { attachFiles } from "./files";
import { toEnd } from "./follow";
import { Icon } from "./icons";
import { Meter } from "./Meter";
import { SchemaChip } from "./Structured";
import { ThinkingControl } from "./ThinkingControl";
import { isSendKey, useGrowth } from "./typing";
import { narrow } from "./ui";
import { VoteButton } from "./VoteButton";

export function Composer() {
  const w = words.value;
  const field = useRef<HTMLTextAreaElement>(null);
  const draft = drafted.value;
  const running = runningHere();
  useGrowth(field, draft.text);
  useEffect(() => {
    if (!narrow.peek()) field.current?.focus({ preventScroll: true });
  }, [current.value.id]);

  function sent(): void {
    setDraft({ text: "", attachments: [] });
    toEnd();
  }
  function submit(): void {
    const text = draft.text.trim();
    if (running.length || (!text && !draft.attachments.length)) return;
    send(text, draft.attachments);
    sent();
  }
  function keyDown(event: KeyboardEvent): void {
    if (!isSendKey(event)) return;
    event.preventDefault();
    submit();
  }
  function paste(event: ClipboardEvent): void {
    const files = event.clipboardData?.files;
    if (!files?.length) return;
    event.preventDefault();
    void attachFiles(files);
  }
  return (
    <form
      class="composer"
      onSubmit={(event) => {
        event.preventDefault();
        submit();
      }}
    >
      <SchemaChip />
      <Chips
        attachments={draft.attachments}
        onRemove={(index) => setDraft({ attachments: draft.attachments.toSpliced(index, 1) })}
      />
      <textarea
        ref={field}
        id={COMPOSER_ID}
        rows={1}
        aria-label={w.composer.label}
        placeholder={w.composer.placeholder}
        value={draft.text}
        onInput={(event) => setDraft({ text: event.currentTarget.value })}
        onKeyDown={keyDown}
        onPaste={paste}
      />
      <div class="composer-tools">
        <AddMenu />
        <ThinkingControl />
        <VoteButton draft={draft} onSent={sent} disabled={running.length > 0} />
        <span class="space" />
        <Meter draft={draft} />
        {running.length ? (
          <button
            type="button"
            class="go halt"
            aria-label={w.composer.stop}
            title={w.composer.stop}
            onClick={() => running.forEach(stop)}
          >
            <Icon name="stop" />
          </button>
        ) : (
          <button
            type="submit"
            class="go"
            aria-label={w.composer.send}
            title={`${w.composer.send}: ${w.composer.hint}`}
            disabled={!draft.text.trim() && !draft.attachments.length}
          >
            <Icon name="send" />
          </button>
        )}
      </div>
    </form>
  );
}
