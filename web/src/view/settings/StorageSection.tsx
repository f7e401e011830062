/** Says how much this page stores, and deletes all of it. */
import { useEffect, useState } from "preact/hooks";

import { eraseEverything } from "../../state/erase";
import { heads } from "../../state/conversations";
import { words } from "../../words";
import { dialogWords } from "../../words/dialogs";
import { Confirm } from "../parts/Dialog";
import { toast, dialog } from "../ui";
import { size } from "./validate";

interface Estimate {
  usage?: number;
  quota?: number;
}

/** What the browser says about its storage; over plain http it says nothing. */
function useEstimate(again: unknown): Estimate {
  const [estimate, setEstimate] = useState<Estimate>({});
  useEffect(() => {
    const storage = navigator.storage as StorageManager | undefined;
    storage?.estimate?.().then(setEstimate, () => setEstimate({}));
  }, [again]);
  return estimate;
}

export function StorageSection() {
  const { storage, cancel } = dialogWords.value;
  const [asking, ask] = useState(false);
  const count = heads.value.length;
  const { usage, quota } = useEstimate(count);
  const { locale } = words.value;
  const remove = () => {
    ask(false);
    eraseEverything().then(
      () => toast(storage.removed),
      () => toast(storage.failed),
    );
  };
  return (
    <>
      <p>
        {storage.explain} {storage.conversations(count)}
        {" · "}
        {usage !== undefined && quota ? storage.used(size(usage, locale), size(quota, locale)) : storage.unknown}
      </p>
      <div class="button-row">
        <button type="button" class="button" onClick={() => (dialog.value = "transfer")}>
          {storage.exportFirst}
        </button>
        <button type="button" class="button bad" onClick={() => ask(true)}>
          {storage.removeAll}
        </button>
      </div>
      {asking && (
        <Confirm
          title={storage.removeYes}
          question={storage.removeAsk(count)}
          yes={storage.removeYes}
          no={cancel}
          onYes={remove}
          onNo={() => ask(false)}
        />
      )}
    </>
  );
}
