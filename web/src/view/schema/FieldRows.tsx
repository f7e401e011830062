/** The fields of a structured answer, one a row: name, kind, whether it is required, and choices. */
import { dialogWords } from "../../words/dialogs";
import { Icon } from "../icons";
import { Frame } from "../parts/Field";
import { FIELD_TYPES, fieldProblems, type Field, type FieldProblem, type FieldType } from "./builder";

export function newField(): Field {
  return { name: "", type: "string", required: true, choices: [] };
}

interface Props {
  fields: Field[] | null; // null: the schema cannot be shown as fields
  onChange: (fields: Field[]) => void;
}

export function FieldRows({ fields, onChange }: Props) {
  const { schema: texts } = dialogWords.value;
  if (!fields) {
    return (
      <>
        <p>{texts.tooRich}</p>
        <button type="button" class="button" onClick={() => onChange([newField()])}>
          {texts.startFields}
        </button>
      </>
    );
  }
  const problems = fieldProblems(fields);
  return (
    <>
      <p class="hint">{texts.fieldsHint}</p>
      {fields.map((field, i) => (
        <FieldRow
          key={i}
          field={field}
          index={i}
          problem={problems.get(i)}
          onChange={(changed) => onChange(fields.with(i, changed))}
          onRemove={() => onChange(fields.toSpliced(i, 1))}
        />
      ))}
      <button type="button" class="button" onClick={() => onChange([...fields, newField()])}>
        <Icon name="plus" />
        {texts.add}
      </button>
    </>
  );
}

interface RowProps {
  field: Field;
  index: number;
  problem: FieldProblem | undefined;
  onChange: (field: Field) => void;
  onRemove: () => void;
}

function FieldRow({ field, index, problem, onChange, onRemove }: RowProps) {
  const { schema: texts } = dialogWords.value;
  const said = problem && !(problem === "noName" && field.name === "") ? texts.problem[problem] : null;
  return (
    <fieldset class="schema-field">
      <legend class="unseen">{texts.field(index + 1)}</legend>
      <Frame label={texts.name} problem={problem === "noChoices" ? null : said}>
        {(ids) => (
          <input
            {...ids}
            type="text"
            maxLength={100}
            value={field.name}
            onInput={(event) => onChange({ ...field, name: event.currentTarget.value })}
          />
        )}
      </Frame>
      <Frame label={texts.type}>
        {(ids) => (
          <select
            {...ids}
            value={field.type}
            onChange={(event) => onChange({ ...field, type: event.currentTarget.value as FieldType })}
          >
            {FIELD_TYPES.map((type) => (
              <option key={type} value={type}>
                {texts.types[type]}
              </option>
            ))}
          </select>
        )}
      </Frame>
      <label class="check">
        <input
          type="checkbox"
          checked={field.required}
          onChange={(event) => onChange({ ...field, required: event.currentTarget.checked })}
        />
        <span>{texts.required}</span>
      </label>
      <button type="button" class="tool" aria-label={texts.remove(field.name)} onClick={onRemove}>
        <Icon name="trash" />
      </button>
      {field.type === "enum" && (
        <Choices field={field} problem={problem === "noChoices" ? said : null} onChange={onChange} />
      )}
    </fieldset>
  );
}

function Choices({
  field,
  problem,
  onChange,
}: {
  field: Field;
  problem: string | null | undefined;
  onChange: (field: Field) => void;
}) {
  const { schema: texts } = dialogWords.value;
  const split = (text: string) =>
    text
      .split(/[,，、]/u)
      .map((choice) => choice.trim())
      .filter(Boolean);
  return (
    <div class="schema-choices">
      <Frame label={texts.choices} problem={problem}>
        {(ids) => (
          <input
            {...ids}
            type="text"
            value={field.choices.join(", ")}
            onChange={(event) => onChange({ ...field, choices: split(event.currentTarget.value) })}
          />
        )}
      </Frame>
    </div>
  );
}
