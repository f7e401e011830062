/** The keys of the page, and what they do. */
import { useEffect } from "preact/hooks";

import { stop } from "../state/generation";
import type { Words } from "../words";
import { COMPOSER_ID, focusComposer, runningHere } from "./composing";
import { newChat, SEARCH_ID } from "./Sidebar";
import { dialog, drawer, narrow, sidebar, toggleSidebar } from "./ui";

const APPLE = /mac|iphone|ipad/i.test(navigator.platform);
const MOD = APPLE ? "⌘" : "Ctrl";

type Name = keyof Omit<Words["shortcuts"], "title">;

export const KEYS: readonly [Name, string[]][] = [
  ["send", ["Enter"]],
  ["line", ["Shift", "Enter"]],
  ["newChat", [MOD, "Shift", "O"]],
  ["search", [MOD, "K"]],
  ["menu", [MOD, "B"]],
  ["focus", ["/"]],
  ["stop", ["Esc"]],
  ["help", ["?"]],
];

export function useShortcuts(): void {
  useEffect(() => {
    document.addEventListener("keydown", pressed);
    return () => document.removeEventListener("keydown", pressed);
  }, []);
}

function pressed(event: KeyboardEvent): void {
  if (event.defaultPrevented || event.isComposing || document.querySelector("dialog:modal:not(.drawer)")) return;
  const action = actionOf(event);
  if (!action) return;
  event.preventDefault();
  action();
}

function actionOf(event: KeyboardEvent): (() => void) | undefined {
  const key = event.key.toLowerCase();
  if (APPLE ? event.metaKey : event.ctrlKey) {
    if (event.shiftKey) return key === "o" ? newChat : undefined;
    return { k: focusSearch, b: toggleSidebar }[key];
  }
  const field = event.target instanceof Element ? event.target.closest("input, textarea, select") : null;
  if (key === "escape") {
    const forOthers = (field && field.id !== COMPOSER_ID) || document.querySelector(":popover-open");
    return runningHere().length && !forOthers ? stopHere : undefined;
  }
  if (field || event.altKey || event.metaKey) return undefined;
  return { "/": focusComposer, "?": () => (dialog.value = "shortcuts") }[key];
}

const stopHere = (): void => runningHere().forEach(stop);

function focusSearch(): void {
  (narrow.value ? drawer : sidebar).value = true;
  requestAnimationFrame(() => document.getElementById(SEARCH_ID)?.focus());
}
