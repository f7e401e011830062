/** What is open, shown or said on the page at this moment. Nothing here is stored, apart from whether the sidebar is open. */
import { effect, signal } from "@preact/signals";

import { readValue, writeValue } from "../store/place";

export type DialogName = "settings" | "shortcuts" | "schema" | "transfer";

export const dialog = signal<DialogName | null>(null);

const NARROW = "(max-width: 55.99rem)";
const SIDEBAR = "sidebar";

/** On a narrow window the sidebar is a drawer over the conversation, closed at first. */
export const narrow = signal(matchMedia(NARROW).matches);
export const drawer = signal(false);
export const sidebar = signal(readValue("local", SIDEBAR) !== "closed");

matchMedia(NARROW).addEventListener("change", (event) => {
  narrow.value = event.matches;
  drawer.value = false;
});
effect(() => void writeValue("local", SIDEBAR, sidebar.value ? "open" : "closed"));

export function toggleSidebar(): void {
  if (narrow.value) drawer.value = !drawer.value;
  else sidebar.value = !sidebar.value;
  requestAnimationFrame(() => document.querySelector<HTMLElement>('[data-name="sidebar"]')?.focus()); // its other place
}

export interface Toast {
  id: number;
  text: string;
  action?: { label: string; run: () => void };
}

export const toasts = signal<readonly Toast[]>([]);
let lastToast = 0;

export function toast(text: string, action?: Toast["action"]): void {
  lastToast += 1;
  toasts.value = [...toasts.value.slice(-2), { id: lastToast, text, ...(action ? { action } : {}) }];
}

export function dismiss(id: number): void {
  toasts.value = toasts.value.filter((each) => each.id !== id);
}

/** Milliseconds since 1970, once a second, while a component shows it. */
export const second = signal(Date.now(), {
  watched() {
    second.value = Date.now();
    ticking = window.setInterval(() => (second.value = Date.now()), 1000);
  },
  unwatched() {
    window.clearInterval(ticking);
  },
});
let ticking = 0;
