/** Chooses, saves, renames and deletes presets. */
import { useState } from "preact/hooks";

import { apply, presets, settings, update } from "../../state/settings";
import { dialogWords } from "../../words/dialogs";
import { Confirm } from "../parts/Dialog";
import { Frame } from "../parts/Field";
import { PresetName } from "./PresetName";
import { held, isApplied } from "./presets";

const OWN = "own"; // the value of an option, as no preset has it
const PRESET = "preset:"; // before the name of one; the publisher's advice has no name

export function PresetRow() {
  const texts = dialogWords.value;
  const [step, setStep] = useState<"save" | "rename" | "remove" | null>(null);
  const all = presets.value;
  const applied = all.find((preset) => isApplied(settings.value, preset.settings));
  const own = settings.value.presets;
  const mine = applied?.name ? applied : undefined; // can be renamed and deleted
  const value = applied ? `${PRESET}${applied.name}` : OWN;
  const choose = (chosen: string) => {
    const preset = all.find((each) => `${PRESET}${each.name}` === chosen);
    if (preset) apply(preset);
  };
  const store = (name: string) => {
    const saved = { name, settings: step === "rename" && mine ? mine.settings : held(settings.value) };
    const kept = step === "rename" ? own.map((each) => (each === mine ? saved : each)) : [...own, saved];
    update({ presets: kept });
    setStep(null);
  };
  return (
    <div class="preset-row">
      <Frame label={texts.presets.label}>
        {(ids) => (
          <select {...ids} value={value} onChange={(event) => choose(event.currentTarget.value)}>
            {all.map((preset) => (
              <option key={preset.name} value={`${PRESET}${preset.name}`}>
                {preset.name || texts.presets.advice}
              </option>
            ))}
            {value === OWN && <option value={OWN}>{texts.presets.own}</option>}
          </select>
        )}
      </Frame>
      {value === OWN && (
        <button type="button" class="button" onClick={() => setStep("save")}>
          {texts.presets.save}
        </button>
      )}
      {mine && (
        <button type="button" class="button" onClick={() => setStep("rename")}>
          {texts.presets.rename}
        </button>
      )}
      {mine && (
        <button type="button" class="button" onClick={() => setStep("remove")}>
          {texts.presets.remove}
        </button>
      )}
      {(step === "save" || step === "rename") && (
        <PresetName
          first={step === "rename" ? mine?.name : undefined}
          presets={own}
          onStore={store}
          onCancel={() => setStep(null)}
        />
      )}
      {step === "remove" && mine && (
        <Confirm
          title={texts.presets.remove}
          question={texts.presets.removeAsk(mine.name)}
          yes={texts.presets.remove}
          no={texts.cancel}
          onNo={() => setStep(null)}
          onYes={() => {
            update({ presets: own.filter((each) => each !== mine) });
            setStep(null);
          }}
        />
      )}
    </div>
  );
}
