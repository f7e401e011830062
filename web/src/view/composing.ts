/** What other views need of the composer: where it is, and which answers its button stops. */
import { live } from "../state/generation";
import { current } from "../state/library";

export const COMPOSER_ID = "message-box";

export const focusComposer = (): void => document.getElementById(COMPOSER_ID)?.focus();

/** The answers of this conversation that are being made. */
export function runningHere(): string[] {
  return Object.keys(current.value.messages).filter((id) => live.value.has(id));
}
