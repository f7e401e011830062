/** The settings dialog. Every valid change takes effect at once; there is nothing to save. */
import "../../style/settings.css";
import { dialogWords } from "../../words/dialogs";
import { Dialog } from "../parts/Dialog";
import { AnswerFields } from "./AnswerFields";
import { KeySection } from "./KeySection";
import { PageFields } from "./PageFields";
import { PresetRow } from "./PresetRow";
import { ResetButton } from "./ResetButton";
import { StorageSection } from "./StorageSection";

export function Settings({ onClose }: { onClose: () => void }) {
  const { settings, done } = dialogWords.value;
  return (
    <Dialog
      title={settings.title}
      onClose={onClose}
      actions={
        <>
          <ResetButton />
          <button type="button" class="button primary" onClick={onClose}>
            {done}
          </button>
        </>
      }
    >
      <section aria-labelledby="settings-answers">
        <h3 id="settings-answers">{settings.answers}</h3>
        <PresetRow />
        <AnswerFields />
      </section>
      <section aria-labelledby="settings-page">
        <h3 id="settings-page">{settings.page}</h3>
        <PageFields />
      </section>
      <section aria-labelledby="settings-access">
        <h3 id="settings-access">{settings.access}</h3>
        <KeySection />
      </section>
      <section aria-labelledby="settings-storage">
        <h3 id="settings-storage">{settings.storage}</h3>
        <StorageSection />
      </section>
    </Dialog>
  );
}
