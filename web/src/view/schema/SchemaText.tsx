/** A JSON Schema as text, with what is wrong with it. */
import { dialogWords } from "../../words/dialogs";
import { Frame } from "../parts/Field";
import { MAX_CHARACTERS, type Problem, type readSchema } from "./check";

interface Props {
  text: string;
  read: ReturnType<typeof readSchema>;
  onChange: (text: string) => void;
}

function inWords(problem: Problem): string {
  const texts = dialogWords.value.schema.problem;
  if (problem.kind === "json") return texts.json(problem.message);
  if (problem.kind === "large") return texts.large(problem.limit);
  if (problem.kind === "notObject") return texts.notObject;
  const where = problem.where || texts.whole;
  if (problem.kind === "type") return texts.type(where, problem.found, problem.similar);
  if (problem.kind === "missing") return texts.missing(where, problem.name);
  if (problem.kind === "unsupported") return texts.unsupported(where, problem.keyword);
  return texts.wrong(
    [problem.where, problem.keyword].filter(Boolean).join(".") || texts.whole,
    texts.wanted[problem.wanted],
  );
}

export function SchemaText({ text, read, onChange }: Props) {
  const { schema: texts } = dialogWords.value;
  const problem = text.trim() && "problem" in read ? inWords(read.problem) : null;
  return (
    <>
      <Frame label={texts.text} hint={texts.textHint} problem={problem}>
        {(ids) => (
          <textarea
            {...ids}
            class="code"
            rows={14}
            spellcheck={false}
            maxLength={MAX_CHARACTERS + 1}
            value={text}
            onInput={(event) => onChange(event.currentTarget.value)}
          />
        )}
      </Frame>
      {"schema" in read && <p class="fits">{texts.fits}</p>}
    </>
  );
}
