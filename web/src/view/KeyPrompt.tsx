/** Opens the question for an API key as soon as the server wants one, and whenever the user asks for it. */
import { effect, signal } from "@preact/signals";
import { useEffect } from "preact/hooks";

import type { Id } from "../state/conversation";
import { live } from "../state/live";
import { reach } from "../state/server";
import { lazy } from "./parts/lazy";

const KeyForm = lazy(async () => (await import("./settings/KeyForm")).KeyForm);

const open = signal(false);

export function askForKey(): void {
  open.value = true;
}

const close = () => (open.value = false);

export function KeyPrompt() {
  useEffect(() => {
    // Effects, not conditions: who closes the question is not asked again until the server refuses something else.
    const noticed = effect(() => {
      if (reach.value === "unauthorized") open.value = true;
    });
    let refused = new Set<Id>();
    const refusals = effect(() => {
      const now = [...live.value.values()].filter(({ fault }) => fault?.kind === "unauthorized");
      if (now.some(({ messageId }) => !refused.has(messageId))) open.value = true;
      refused = new Set(now.map(({ messageId }) => messageId));
    });
    return () => {
      noticed();
      refusals();
    };
  }, []);
  return open.value ? <KeyForm onClose={close} /> : null;
}
