/** Whether the next answers think, as one choice: on, off, or up to a budget. */
import { settings, update } from "../../state/settings";

export type ThinkingMode = "on" | "off" | "budget";

export function thinkingMode(): ThinkingMode {
  if (settings.value.thinking === false) return "off";
  return settings.value.thoughtBudget === undefined ? "on" : "budget";
}

const FIRST_BUDGET = 1024;

export function setThinking(mode: ThinkingMode): void {
  update({
    thinking: mode !== "off",
    thoughtBudget: mode === "budget" ? (settings.value.thoughtBudget ?? FIRST_BUDGET) : undefined,
  });
}
