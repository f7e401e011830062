/** Opens the question for an API key as soon as the server wants one, and whenever the user asks for it. */
import { effect, signal } from "@preact/signals";
import { useEffect } from "preact/hooks";

import { reach } from "../state/server";
import { lazy } from "./parts/lazy";

const KeyForm = lazy(async () => (await import("./settings/KeyForm")).KeyForm);

const open = signal(false);

export function askForKey(): void {
  open.value = true;
}

const close = () => (open.value = false);

export function KeyPrompt() {
  // An effect, not a condition: who closes the question is not asked again until the server refuses another time.
  useEffect(
    () =>
      effect(() => {
        if (reach.value === "unauthorized") open.value = true;
      }),
    [],
  );
  return open.value ? <KeyForm onClose={close} /> : null;
}
