/** What text fields share: the key that sends, and growing with their text. */
import type { RefObject } from "preact";
import { useLayoutEffect } from "preact/hooks";

import { settings } from "../state/settings";

const PROCESSED_BY_INPUT_METHOD = 229; // what Safari reports for the Enter that ends a composition

/** Enter alone sends, or Ctrl+Enter as the settings say; never while an input method composes: there Enter chooses a word. */
export function isSendKey(event: KeyboardEvent): boolean {
  const composing = event.isComposing || event.keyCode === PROCESSED_BY_INPUT_METHOD;
  if (event.key !== "Enter" || composing || event.shiftKey || event.altKey) return false;
  const withControl = event.ctrlKey || event.metaKey;
  return withControl || settings.peek().sendKey === "enter";
}

const GROWS_BY_ITSELF = CSS.supports("field-sizing", "content");

/** Makes a field as high as its text where the browser does not do so by itself. */
export function useGrowth(field: RefObject<HTMLTextAreaElement | null>, value?: string): void {
  useLayoutEffect(() => {
    const element = field.current;
    if (!element || GROWS_BY_ITSELF) return undefined;
    const grow = (): void => {
      element.style.height = "auto";
      element.style.height = `${element.scrollHeight}px`;
    };
    grow();
    element.addEventListener("input", grow);
    return () => element.removeEventListener("input", grow);
  }, [value]);
}
