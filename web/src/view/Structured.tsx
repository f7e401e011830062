/** The entry points of structured answers: the mark in the composer, the dialog, and the form instead of JSON. */
import type { AnswerSettings } from "../api/types";
import type { Message } from "../state/conversation";
import { settings, update } from "../state/settings";
import { words } from "../words";
import { Icon } from "./icons";
import { lazy } from "./parts/lazy";
import { dialog } from "./ui";

const Form = lazy<{ text: string; schema: unknown; complete: boolean; onClose?: () => void }>(
  async () => (await import("./schema/StructuredView")).StructuredView,
);
const Editor = lazy<{ onClose: () => void; onDescribe?: ((text: string) => void) | undefined }>(
  async () => (await import("./schema/SchemaEditor")).SchemaEditor,
);

function nameOf(schema: AnswerSettings["schema"]): string {
  const { untitled } = words.value.extras.structured;
  const title = typeof schema === "object" && schema !== null && "title" in schema ? schema.title : null;
  return typeof title === "string" && title.trim() ? title : untitled;
}

/** In the composer, while answers follow a schema: which one, and a way back. Shows nothing otherwise. */
export function SchemaChip() {
  const { structured } = words.value.extras;
  const { schema } = settings.value;
  if (schema === undefined) return null;
  return (
    <div class="chips">
      <span class="chip">
        <button type="button" class="tool" title={structured.edit} onClick={() => (dialog.value = "schema")}>
          <Icon name="form" />
          <span class="name">{structured.on(nameOf(schema))}</span>
        </button>
        <button type="button" class="tool" aria-label={structured.remove} onClick={() => update({ schema: undefined })}>
          <Icon name="close" />
        </button>
      </span>
    </div>
  );
}

/** Opens the dialog, from the composer. */
export function SchemaButton() {
  const { structured } = words.value.extras;
  return (
    <button
      type="button"
      class="tool"
      data-on={settings.value.schema !== undefined}
      aria-label={structured.open}
      aria-haspopup="dialog"
      title={structured.open}
      onClick={() => (dialog.value = "schema")}
    >
      <Icon name="form" />
    </button>
  );
}

/** The dialog that chooses a schema. `onDescribe` gets a sentence about the wanted fields, for the message. */
export function SchemaFormDialog({ onDescribe }: { onDescribe?: (text: string) => void }) {
  return dialog.value === "schema" ? <Editor onClose={() => (dialog.value = null)} onDescribe={onDescribe} /> : null;
}

/** Whether this answer was asked for with a schema, so that `StructuredAnswer` shows it. */
export function isStructured(message: Message): boolean {
  return message.answer?.settings.schema !== undefined;
}

/** A structured answer as a form; `text` is what is there of it. */
export function StructuredAnswer({ message, text, complete }: { message: Message; text: string; complete: boolean }) {
  return <Form text={text} schema={message.answer?.settings.schema} complete={complete} />;
}
