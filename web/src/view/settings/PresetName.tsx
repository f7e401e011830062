/** Asks for the name of a preset that is saved or renamed. */
import { useState } from "preact/hooks";

import type { Preset } from "../../state/settings";
import { dialogWords } from "../../words/dialogs";
import { Dialog } from "../parts/Dialog";
import { Frame } from "../parts/Field";
import { nameProblem } from "./presets";

interface Props {
  first: string | undefined; // the name so far
  presets: readonly Preset[];
  onStore: (name: string) => void;
  onCancel: () => void;
}

export function PresetName({ first, presets, onStore, onCancel }: Props) {
  const texts = dialogWords.value;
  const [name, setName] = useState(first ?? "");
  const [tried, setTried] = useState(false);
  const problem = nameProblem(name, presets, first);
  const submit = (event: Event) => {
    event.preventDefault();
    setTried(true);
    if (!problem) onStore(name.trim());
  };
  return (
    <Dialog
      title={first === undefined ? texts.presets.save : texts.presets.rename}
      size="small"
      onClose={onCancel}
      actions={
        <>
          <button type="button" class="button" onClick={onCancel}>
            {texts.cancel}
          </button>
          <button type="submit" form="preset-name" class="button primary">
            {texts.presets.store}
          </button>
        </>
      }
    >
      <form id="preset-name" onSubmit={submit}>
        <Frame
          label={texts.presets.name}
          problem={problem && (tried || problem === "nameTaken") ? texts.presets[problem] : null}
        >
          {(ids) => (
            <input
              {...ids}
              type="text"
              autofocus
              maxLength={60}
              value={name}
              onInput={(event) => setName(event.currentTarget.value)}
            />
          )}
        </Frame>
      </form>
    </Dialog>
  );
}
