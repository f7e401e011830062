/** The keys of the page: what they do, and the list of them. */
import { useEffect } from "preact/hooks";

import { stop } from "../state/generation";
import { words, type Words } from "../words";
import { COMPOSER_ID, runningHere } from "./Composer";
import { Icon } from "./icons";
import { useModal } from "./modal";
import { newChat, SEARCH_ID } from "./Sidebar";
import { dialog, drawer, narrow, sidebar, toggleSidebar } from "./ui";

const APPLE = /mac|iphone|ipad/i.test(navigator.platform);
const MOD = APPLE ? "⌘" : "Ctrl";

type Name = keyof Omit<Words["shortcuts"], "title">;

const KEYS: readonly [Name, string[]][] = [
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

export function ShortcutsDialog() {
  const w = words.value;
  const frame = useModal();
  return (
    <dialog
      ref={frame}
      class="shortcuts"
      aria-labelledby="shortcuts-title"
      onClose={() => (dialog.value = null)}
    >
      <div class="dialog-head">
        <h2 id="shortcuts-title">{w.shortcuts.title}</h2>
        <button type="button" class="tool" aria-label={w.page.close} onClick={() => frame.current?.close()}>
          <Icon name="close" />
        </button>
      </div>
      <dl>
        {KEYS.map(([name, keys]) => (
          <div key={name}>
            <dt>{w.shortcuts[name]}</dt>
            <dd>
              {keys.map((each) => (
                <kbd key={each}>{each}</kbd>
              ))}
            </dd>
          </div>
        ))}
      </dl>
    </dialog>
  );
}
