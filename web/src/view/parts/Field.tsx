/** One labelled value of a form: its label, the control, a hint and, if the value is wrong, why. */
import type { ComponentChildren } from "preact";
import { useId, useState } from "preact/hooks";

interface FrameProps {
  label: string;
  hint?: string | undefined;
  problem?: string | null | undefined;
  children: (ids: { id: string; "aria-describedby": string | undefined; "aria-invalid": boolean }) => ComponentChildren;
}

/** Connects a control with its label, hint and problem. */
export function Frame({ label, hint, problem, children }: FrameProps) {
  const id = useId();
  const described = [problem && `${id}-problem`, hint && `${id}-hint`].filter(Boolean).join(" ");
  return (
    <div class="field">
      <label for={id}>{label}</label>
      {children({ id, "aria-describedby": described || undefined, "aria-invalid": Boolean(problem) })}
      <output class="problem" id={`${id}-problem`} for={id}>
        {problem}
      </output>
      {hint && (
        <p class="hint" id={`${id}-hint`}>
          {hint}
        </p>
      )}
    </div>
  );
}

interface ValueProps<T> {
  label: string;
  hint?: string;
  placeholder?: string;
  value: T | undefined;
  /** Reads what was typed; a problem is shown, and the value stays as it was. */
  read: (text: string) => { value: T | undefined } | { problem: string };
  onChange: (value: T | undefined) => void;
  mode?: "decimal" | "numeric";
}

/** A text field for a number. It keeps what is typed while that is wrong, and follows changes from elsewhere. */
export function ValueField<T extends number>({ label, hint, placeholder, value, read, onChange, mode }: ValueProps<T>) {
  const [draft, setDraft] = useState<{ text: string; for: T | undefined } | null>(null);
  const current = draft && draft.for === value ? draft.text : value === undefined ? "" : String(value);
  const result = read(current);
  return (
    <Frame label={label} hint={hint} problem={"problem" in result ? result.problem : null}>
      {(ids) => (
        <input
          {...ids}
          type="text"
          inputMode={mode ?? "decimal"}
          autocomplete="off"
          placeholder={placeholder}
          value={current}
          onInput={(event) => {
            const text = event.currentTarget.value;
            const typed = read(text);
            const next = "problem" in typed ? value : typed.value;
            setDraft({ text, for: next });
            if (next !== value) onChange(next);
          }}
        />
      )}
    </Frame>
  );
}

interface ChoiceProps<T extends string> {
  label: string;
  value: T;
  options: Readonly<Record<T, string>>;
  onChange: (value: T) => void;
}

/** One of a few: radio buttons that look like one control. */
export function ChoiceField<T extends string>({ label, value, options, onChange }: ChoiceProps<T>) {
  const name = useId();
  return (
    <fieldset class="field choice-field">
      <legend>{label}</legend>
      <div class="segments">
        {(Object.keys(options) as T[]).map((each) => (
          <label key={each}>
            <input type="radio" name={name} checked={each === value} onChange={() => onChange(each)} />
            <span>{options[each]}</span>
          </label>
        ))}
      </div>
    </fieldset>
  );
}
