/** Sets everything back to the defaults, apart from presets and the key. */
import { useState } from "preact/hooks";

import { apply, update } from "../../state/settings";
import { dialogWords } from "../../words/dialogs";
import { Confirm } from "../parts/Dialog";

export function ResetButton() {
  const texts = dialogWords.value;
  const [asking, ask] = useState(false);
  const reset = () => {
    apply({ name: "", settings: {} });
    update({ logprobs: undefined, schema: undefined, language: undefined, theme: undefined, sendKey: undefined });
    ask(false);
  };
  return (
    <>
      <button type="button" class="button" onClick={() => ask(true)}>
        {texts.settings.reset}
      </button>
      {asking && (
        <Confirm
          title={texts.settings.reset}
          question={texts.settings.resetAsk}
          yes={texts.settings.resetYes}
          no={texts.cancel}
          onYes={reset}
          onNo={() => ask(false)}
        />
      )}
    </>
  );
}
