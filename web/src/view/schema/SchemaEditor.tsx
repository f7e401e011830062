/** The dialog that chooses the form of structured answers: from fields, from an example, or as a JSON Schema. */
import { useState } from "preact/hooks";

import "../../style/schema.css";
import { settings, update } from "../../state/settings";
import { dialogWords } from "../../words/dialogs";
import { Dialog } from "../parts/Dialog";
import { ChoiceField } from "../parts/Field";
import { description, fieldProblems, fieldsOf, schemaOf, type Field } from "./builder";
import { readSchema, type JsonObject } from "./check";
import { EXAMPLES } from "./examples";
import { FieldRows, newField } from "./FieldRows";
import { SchemaText } from "./SchemaText";

interface Props {
  onClose: () => void;
  onDescribe?: ((text: string) => void) | undefined;
}

type Tab = "build" | "write";

const pretty = (schema: unknown) => JSON.stringify(schema, null, 2);

/** The schema that is being edited: as fields or as text. Changing over keeps it where both can express it. */
function useDraft() {
  const first = settings.peek().schema as JsonObject | undefined;
  const firstFields = first ? fieldsOf(first) : [newField()];
  const [tab, setTab] = useState<Tab>(firstFields ? "build" : "write");
  const [fields, setFields] = useState<Field[] | null>(firstFields);
  const [text, setText] = useState(first ? pretty(first) : "");
  const usable = fields && fields.length > 0 && fieldProblems(fields).size === 0 ? schemaOf(fields) : null;
  const read = readSchema(text);
  const changeTo = (next: Tab) => {
    if (next === "write" && usable) setText(pretty(usable));
    if (next === "build" && text.trim() && "schema" in read) setFields(fieldsOf(read.schema));
    setTab(next);
  };
  const take = (schema: JsonObject) => {
    setText(pretty(schema));
    setFields(fieldsOf(schema));
    if (!fieldsOf(schema)) setTab("write");
  };
  const schema = tab === "build" ? usable : "schema" in read ? read.schema : null;
  return { tab, changeTo, fields, setFields, text, setText, read, take, schema };
}

export function SchemaEditor({ onClose, onDescribe }: Props) {
  const { schema: texts } = dialogWords.value;
  const draft = useDraft();
  const { schema } = draft;
  const apply = (value: unknown) => {
    update({ schema: value });
    onClose();
  };
  return (
    <Dialog
      title={texts.title}
      size="wide"
      onClose={onClose}
      actions={
        <>
          {settings.value.schema !== undefined && (
            <button type="button" class="button" onClick={() => apply(undefined)}>
              {texts.off}
            </button>
          )}
          {onDescribe && (
            <button
              type="button"
              class="button"
              title={texts.describeHint}
              disabled={!schema}
              onClick={() => {
                onDescribe(texts.sentence(description(schema ?? {})));
                apply(schema);
              }}
            >
              {texts.describe}
            </button>
          )}
          <button type="button" class="button primary" disabled={!schema} onClick={() => apply(schema)}>
            {texts.use}
          </button>
        </>
      }
    >
      <p>{texts.explain}</p>
      <div class="schema-examples">
        <span>{texts.examples}</span>
        {EXAMPLES.map((example) => (
          <button key={example.name} type="button" class="button" onClick={() => draft.take(example.schema)}>
            {texts.example[example.name]}
          </button>
        ))}
      </div>
      <ChoiceField label={texts.editAs} value={draft.tab} options={texts.tabs} onChange={draft.changeTo} />
      {draft.tab === "build" ? (
        <FieldRows fields={draft.fields} onChange={draft.setFields} />
      ) : (
        <SchemaText text={draft.text} read={draft.read} onChange={draft.setText} />
      )}
      {onDescribe && <p class="hint">{texts.describeHint}</p>}
    </Dialog>
  );
}
