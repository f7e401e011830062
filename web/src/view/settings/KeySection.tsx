/** The API key in the settings: whether there is one, and to forget it. */
import { apiKey, keyIsRemembered } from "../../api/client";
import { dialogWords } from "../../words/dialogs";
import { askForKey } from "../KeyPrompt";

export function KeySection() {
  const { key } = dialogWords.value;
  const forget = () => {
    apiKey.value = "";
  };
  return (
    <>
      <p>{apiKey.value ? (keyIsRemembered() ? key.setRemembered : key.set) : key.none}</p>
      <div class="button-row">
        <button type="button" class="button" onClick={askForKey}>
          {key.change}
        </button>
        {apiKey.value && (
          <button type="button" class="button" onClick={forget}>
            {key.forget}
          </button>
        )}
      </div>
    </>
  );
}
