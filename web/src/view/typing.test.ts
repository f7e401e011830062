// @vitest-environment happy-dom
import { afterEach, expect, test, vi } from "vitest";

vi.hoisted(() => {
  globalThis.CSS ??= { supports: () => true } as unknown as typeof CSS;
});

import { settings } from "../state/settings";
import { isSendKey } from "./typing";

const key = (init: KeyboardEventInit & { keyCode?: number } = {}): KeyboardEvent =>
  ({ key: "Enter", shiftKey: false, ctrlKey: false, metaKey: false, altKey: false, isComposing: false, keyCode: 13, ...init }) as KeyboardEvent;

afterEach(() => {
  settings.value = { ...settings.peek(), sendKey: "enter" };
});

test("Enter sends, Shift+Enter does not", () => {
  expect(isSendKey(key())).toBe(true);
  expect(isSendKey(key({ shiftKey: true }))).toBe(false);
  expect(isSendKey(key({ key: "a" }))).toBe(false);
});

test("nothing is sent while an input method composes", () => {
  expect(isSendKey(key({ isComposing: true }))).toBe(false);
  expect(isSendKey(key({ keyCode: 229 }))).toBe(false); // Safari, after the composition has ended
});

test("where Ctrl+Enter sends, Enter alone breaks the line", () => {
  settings.value = { ...settings.peek(), sendKey: "ctrl-enter" };
  expect(isSendKey(key())).toBe(false);
  expect(isSendKey(key({ ctrlKey: true }))).toBe(true);
  expect(isSendKey(key({ metaKey: true }))).toBe(true);
  expect(isSendKey(key({ ctrlKey: true, isComposing: true }))).toBe(false);
});
