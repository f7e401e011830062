/** The settings of the page itself. */
import { settings, update } from "../../state/settings";
import { dialogWords } from "../../words/dialogs";
import { ChoiceField } from "../parts/Field";

export function PageFields() {
  const texts = dialogWords.value.settings;
  const { language, theme, sendKey } = settings.value;
  return (
    <>
      <div class="field-row">
        <ChoiceField
          label={texts.language}
          value={language}
          options={texts.languages}
          onChange={(value) => update({ language: value })}
        />
        <ChoiceField
          label={texts.theme}
          value={theme}
          options={texts.themes}
          onChange={(value) => update({ theme: value })}
        />
      </div>
      <ChoiceField
        label={texts.sendKey}
        value={sendKey}
        options={texts.sendKeys}
        onChange={(value) => update({ sendKey: value })}
      />
    </>
  );
}
