/** Asks for an API key, tries it, and lets the requests that waited for it go on. */
import { useState } from "preact/hooks";

import { apiKey, keyIsRemembered, rememberKey, request, ServerFault } from "../../api/client";
import { live, retryNow } from "../../state/generation";
import { pollNow, reach } from "../../state/server";
import { dialogWords } from "../../words/dialogs";
import { Dialog } from "../parts/Dialog";
import { Frame } from "../parts/Field";
import { keyProblem } from "./validate";

/** Why the server does not take the key; null if it does. A server that is still loading takes it. */
async function tried(): Promise<"unauthorized" | "unreachable" | null> {
  try {
    await request("v1/models");
  } catch (error) {
    const kind = error instanceof ServerFault ? error.fault.kind : "unreachable";
    if (kind === "unauthorized" || kind === "unreachable") return kind;
  }
  return null;
}

/** Answers that the server refused for want of a key are asked for again. */
function goOn(): void {
  for (const [id, { fault }] of live.value) if (fault?.kind === "unauthorized") void retryNow(id);
}

export function KeyForm({ onClose }: { onClose: () => void }) {
  const { key: texts, cancel } = dialogWords.value;
  const [key, setKey] = useState("");
  const [remember, setRemember] = useState(keyIsRemembered);
  const [shown, show] = useState(false);
  const [problem, setProblem] = useState<string | null>(
    reach.value === "unauthorized" && apiKey.value ? texts.refused : null,
  );
  const [checking, setChecking] = useState(false);
  const input = {
    value: key,
    autofocus: true,
    autocomplete: "off",
    spellcheck: false,
    onInput: (event: { currentTarget: HTMLInputElement }) => {
      setKey(event.currentTarget.value);
      setProblem(null);
    },
  };
  const submit = async (event: Event) => {
    event.preventDefault();
    const typed = key.trim();
    const wrong = keyProblem(typed);
    if (wrong) return setProblem(texts[wrong]);
    setChecking(true);
    rememberKey(remember);
    apiKey.value = typed;
    const fault = await tried();
    setChecking(false);
    if (fault) return setProblem(fault === "unauthorized" ? texts.refused : texts.unreachable);
    pollNow();
    goOn();
    onClose();
  };
  return (
    <Dialog
      title={texts.title}
      size="small"
      onClose={onClose}
      actions={
        <>
          <button type="button" class="button" onClick={onClose}>
            {cancel}
          </button>
          <button type="submit" form="key-form" class="button primary" disabled={checking}>
            {checking ? texts.checking : texts.use}
          </button>
        </>
      }
    >
      <form id="key-form" onSubmit={(event) => void submit(event)}>
        <p>{texts.explain}</p>
        <Frame label={texts.label} problem={problem}>
          {(ids) => (
            <div class="with-button">
              <input {...ids} {...input} {...(shown ? { type: "text" } : { type: "password" })} />
              <button type="button" class="button" aria-pressed={shown} onClick={() => show(!shown)}>
                {shown ? texts.hide : texts.show}
              </button>
            </div>
          )}
        </Frame>
        <label class="check">
          <input type="checkbox" checked={remember} onChange={(event) => setRemember(event.currentTarget.checked)} />
          <span>{texts.remember}</span>
        </label>
        <p class="hint">{texts.rememberHint}</p>
      </form>
    </Dialog>
  );
}
