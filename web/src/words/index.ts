/** The words of the reader's language. Chinese is loaded only where it is wanted, and English stays until it is there. */
import { effect, signal, type ReadonlySignal } from "@preact/signals";

import { settings } from "../state/settings";
import { en, type Words } from "./en";
import { languageOf } from "./language";

export type { Words };

const current = signal<Words>(en);

export const words: ReadonlySignal<Words> = current;

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
