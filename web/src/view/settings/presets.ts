/** Which settings a preset holds, whether one is in effect, and what it may be called. `state/settings` keeps them. */
import type { AnswerSettings } from "../../api/types";
import type { Preset } from "../../state/settings";

// A preset sets all of these. A structured answer's schema and the probabilities belong to a task, not to a preset.
const KEYS = ["system", "temperature", "topP", "maxTokens", "seed", "thinking", "thoughtBudget"] as const;

/** The part of the settings that a preset holds. */
export function held(settings: AnswerSettings): AnswerSettings {
  return Object.fromEntries(KEYS.filter((key) => settings[key] !== undefined).map((key) => [key, settings[key]]));
}

export function isApplied(settings: AnswerSettings, preset: AnswerSettings): boolean {
  return KEYS.every((key) => (settings[key] ?? standard(key)) === (preset[key] ?? standard(key)));
}

const standard = (key: (typeof KEYS)[number]) => (key === "thinking" ? true : key === "system" ? "" : undefined);

export type NameProblem = "nameNeeded" | "nameTaken";

/** Names differ by more than case and surrounding spaces. `own` is the name that is being changed. */
export function nameProblem(name: string, presets: readonly Preset[], own?: string): NameProblem | null {
  const plain = (text: string) => text.trim().toLocaleLowerCase();
  if (plain(name) === "") return "nameNeeded";
  return presets.some((preset) => preset.name !== own && plain(preset.name) === plain(name)) ? "nameTaken" : null;
}
