/** The keys of the page, and what they do. */
import { useEffect } from "preact/hooks";

import { stop } from "../state/generation";
import type { Words } from "../words";
import { COMPOSER_ID, runningHere } from "./Composer";
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
  if (key === "escape") return runningHere().length && !document.querySelector(":popover-open") ? stopHere : undefined;
  const writing = event.target instanceof Element && event.target.closest("input, textarea, select, [contenteditable]");
  if (writing || event.altKey || event.metaKey) return undefined;
  return { "/": focusComposer, "?": () => (dialog.value = "shortcuts") }[key];
}

const stopHere = (): void => runningHere().forEach(stop);
export const focusComposer = (): void => document.getElementById(COMPOSER_ID)?.focus();

function focusSearch(): void {
  (narrow.value ? drawer : sidebar).value = true;
  requestAnimationFrame(() => document.getElementById(SEARCH_ID)?.focus());
}
