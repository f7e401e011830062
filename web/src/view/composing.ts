/** What other views need of the composer: where it is, and which answers its button stops. */
import { live } from "../state/generation";
import { current } from "../state/conversations";

export const COMPOSER_ID = "message-box";

export const focusComposer = (): void => document.getElementById(COMPOSER_ID)?.focus();

/** Where the focus goes when what had it is gone; not on a touch screen, where it would open the keyboard. */
export function backToComposer(): void {
  if (matchMedia("(hover: hover)").matches) focusComposer();
}

/** The answers of this conversation that are being made. */
export function runningHere(): string[] {
  return Object.keys(current.value.messages).filter((id) => live.value.has(id));
}
