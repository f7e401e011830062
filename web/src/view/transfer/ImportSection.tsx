/** Chooses files or takes dropped ones, and imports them one after the other. */
import { useCallback, useId, useRef, useState } from "preact/hooks";

import { TransferFault } from "../../store/transfer";
import { words } from "../../words";
import { dialogWords } from "../../words/dialogs";
import { size } from "../settings/validate";
import { importFile, MAX_FILE, TooLarge } from "./actions";
import { useDrop } from "./drop";

interface Result {
  text: string;
  failed: boolean;
}

async function importOne(file: File): Promise<Result> {
  const { transfer } = dialogWords.value;
  try {
    const { added, known } = await importFile(file);
    if (added + known === 0) return { text: transfer.refused(file.name, transfer.empty), failed: true };
    return { text: transfer.imported(added, known), failed: false };
  } catch (error) {
    const why = reason(error);
    return { text: transfer.refused(file.name, why), failed: true };
  }
}

/** Why a file was refused, in the reader's language where the page knows it. */
function reason(error: unknown): string {
  const { transfer } = dialogWords.value;
  if (error instanceof TooLarge) return transfer.tooLarge(size(MAX_FILE, words.value.locale));
  if (error instanceof TransferFault) return transfer.faults[error.kind];
  return error instanceof Error ? error.message : String(error); // the browser's, if it cannot store them
}

export function ImportSection() {
  const { transfer } = dialogWords.value;
  const id = useId();
  const place = useRef<HTMLElement>(null);
  const [results, setResults] = useState<Result[] | "reading">([]);
  const take = useCallback(async (files: Iterable<File>) => {
    setResults("reading");
    const done: Result[] = [];
    // One after the other: each may be large, and two may hold the same conversation.
    for (const file of files) done.push(await importOne(file));
    setResults(done);
  }, []);
  const over = useDrop(place, take);
  return (
    <section ref={place} aria-labelledby={`${id}-title`} class="transfer-drop" data-over={over}>
      <h3 id={`${id}-title`}>{transfer.importing}</h3>
      <div class="button-row">
        <label class="button">
          {transfer.choose}
          <input
            type="file"
            class="unseen"
            accept=".json,application/json"
            multiple
            onChange={(event) => {
              const input = event.currentTarget;
              void take(input.files ?? []).then(() => (input.value = "")); // the same file may be chosen again
            }}
          />
        </label>
        <span class="hint">{over ? transfer.dropNow : transfer.drop}</span>
      </div>
      <div aria-live="polite">
        {results === "reading" ? (
          <p>{transfer.reading}</p>
        ) : (
          results.map((result) => (
            <p key={result.text} class={result.failed ? "problem" : ""}>
              {result.text}
            </p>
          ))
        )}
      </div>
    </section>
  );
}
