/** The words of the reader's language. Chinese is loaded only where it is wanted, and English stays until it is there. */
import { effect, signal, type ReadonlySignal } from "@preact/signals";

import { settings } from "../state/settings";
import { en, type Words } from "./en";

export type { Words };

const current = signal<Words>(en);

export const words: ReadonlySignal<Words> = current;

type Language = "en" | "zh";

/** The language that the settings name or, failing that, the browser's first one that is known here. */
export function languageOf(wanted: "auto" | Language, browser: readonly string[]): Language {
  if (wanted !== "auto") return wanted;
  const known = browser.map((tag) => tag.toLowerCase().split("-")[0]).find((tag) => tag === "en" || tag === "zh");
  return known === "zh" ? "zh" : "en";
}

const load = { en: async () => en, zh: async () => (await import("./zh")).zh };

/** Follows the settings from now on; resolves when the first words are there. */
export function followLanguage(): Promise<void> {
  return new Promise((resolve) => {
    effect(() => {
      const language = languageOf(settings.value.language, navigator.languages);
      void load[language]()
        .catch(() => en) // the server may be away: English is better than an empty page
        .then((loaded) => {
          if (language === languageOf(settings.peek().language, navigator.languages)) show(loaded);
          resolve();
        });
    });
  });
}

function show(loaded: Words): void {
  current.value = loaded;
  document.documentElement.lang = loaded.locale;
}
