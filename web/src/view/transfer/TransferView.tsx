/** The dialog for files: export, import, a web page to share, printing. */
import { useState } from "preact/hooks";

import "../../style/transfer.css";
import { heads } from "../../state/conversations";
import { dialogWords } from "../../words/dialogs";
import { Dialog } from "../parts/Dialog";
import { ChoiceField } from "../parts/Field";
import { toast } from "../ui";
import { exportAs, isEmpty, shareAsPage, type Format } from "./actions";
import { ImportSection } from "./ImportSection";

export function TransferView({ onClose }: { onClose: () => void }) {
  const { transfer } = dialogWords.value;
  const [format, setFormat] = useState<Format>("json");
  const [problem, setProblem] = useState<string | null>(null);
  const run = (action: Promise<string>) => {
    setProblem(null);
    action.then(
      (name) => toast(transfer.saved(name)),
      (error: unknown) => setProblem(`${transfer.failed} ${error instanceof Error ? error.message : String(error)}`),
    );
  };
  const count = heads.value.length;
  return (
    <Dialog title={transfer.title} onClose={onClose}>
      <section aria-labelledby="transfer-export">
        <h3 id="transfer-export">{transfer.exporting}</h3>
        <ChoiceField
          label={transfer.format}
          value={format}
          options={{ json: transfer.json, markdown: transfer.markdown }}
          onChange={setFormat}
        />
        <p class="hint">{transfer.jsonHint}</p>
        <div class="button-row">
          <button type="button" class="button" disabled={isEmpty()} onClick={() => run(exportAs(format, "this"))}>
            {transfer.this}
          </button>
          {(count > 1 || isEmpty()) && (
            <button type="button" class="button" disabled={count === 0} onClick={() => run(exportAs(format, "all"))}>
              {transfer.all(count)}
            </button>
          )}
        </div>
        {count === 0 && isEmpty() && <p class="hint">{transfer.nothing}</p>}
      </section>
      <ImportSection />
      <section aria-labelledby="transfer-share">
        <h3 id="transfer-share">{transfer.sharing}</h3>
        <p class="hint">{transfer.shareHint}</p>
        <div class="button-row">
          <button type="button" class="button" disabled={isEmpty()} onClick={() => run(shareAsPage())}>
            {transfer.share}
          </button>
          <button
            type="button"
            class="button"
            disabled={isEmpty()}
            onClick={() => {
              onClose();
              setTimeout(print); // once the dialog is gone
            }}
          >
            {transfer.print}
          </button>
        </div>
      </section>
      <output class="problem">{problem}</output>
    </Dialog>
  );
}
