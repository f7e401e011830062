/** The words of what is loaded on demand, in the language of `words`. */
import { computed, type ReadonlySignal } from "@preact/signals";

import { dialogsEn, type DialogWords } from "./dialogs.en";
import { dialogsZh } from "./dialogs.zh";
import { words } from "./index";

export type { DialogWords };

export const dialogWords: ReadonlySignal<DialogWords> = computed(() =>
  words.value.locale.startsWith("zh") ? dialogsZh : dialogsEn,
);
