/** What the user has set, kept in this browser; other tabs follow. */
import { computed, signal, type ReadonlySignal, type Signal } from "@preact/signals";
import type { AnswerSettings } from "../api/types";
import { readValue, storedName, writeValue } from "../store/place";

export interface Preset {
  name: string; // "" for the publisher's advice, which the views name
  settings: AnswerSettings;
}

export interface Settings extends AnswerSettings {
  language: "auto" | "en" | "zh";
  theme: "auto" | "light" | "dark";
  sendKey: "enter" | "ctrl-enter";
  presets: Preset[]; // the user's own
}

const NAME = "settings";
const DEFAULTS: Settings = { language: "auto", theme: "auto", sendKey: "enter", presets: [] };

// Above `settings`, which is read with these when this module is loaded.
const isNumber = (value: unknown): boolean => typeof value === "number" && Number.isFinite(value);
const isOneOf =
  (...all: string[]) =>
  (value: unknown): boolean =>
    typeof value === "string" && all.includes(value);

const CHECKS: Record<keyof Settings, (value: unknown) => boolean> = {
  system: (value) => typeof value === "string",
  temperature: isNumber,
  topP: isNumber,
  maxTokens: isNumber,
  seed: isNumber,
  thinking: (value) => typeof value === "boolean",
  thoughtBudget: isNumber,
  logprobs: isNumber,
  schema: (value) => typeof value === "object" && value !== null,
  language: isOneOf("auto", "en", "zh"),
  theme: isOneOf("auto", "light", "dark"),
  sendKey: isOneOf("enter", "ctrl-enter"),
  presets: (value) => Array.isArray(value) && value.every(isPreset),
};

function isPreset(value: unknown): boolean {
  const preset = value as Partial<Preset> | null;
  return typeof preset?.name === "string" && typeof preset.settings === "object" && preset.settings !== null;
}

export const settings: Signal<Settings> = signal(stored());

/** The publisher's advice first, then the user's own. The server follows that advice wherever nothing else is asked for. */
export const presets: ReadonlySignal<Preset[]> = computed(() => [{ name: "", settings: {} }, ...settings.value.presets]);

/** Changes some settings; undefined leaves one to the server. */
export function update(patch: { [K in keyof Settings]?: Settings[K] | undefined }): void {
  const all = Object.entries({ ...settings.peek(), ...patch }).filter(([, value]) => value !== undefined);
  settings.value = { ...DEFAULTS, ...(Object.fromEntries(all) as Partial<Settings>) };
  writeValue("local", NAME, JSON.stringify(settings.peek()));
}

/** Sets what a preset sets and leaves the rest of an answer's settings to the server. */
export function apply(preset: Preset): void {
  const { temperature, topP, maxTokens, seed, thinking, thoughtBudget, system } = preset.settings;
  update({ temperature, topP, maxTokens, seed, thinking, thoughtBudget, system });
}

/** The settings of the next answer, without the page's own. */
export function answerSettings(): AnswerSettings {
  const { language: _l, theme: _t, sendKey: _k, presets: _p, ...answer } = settings.peek();
  return answer;
}

/** Follows what other tabs set; returns what ends that. */
export function followSettings(): () => void {
  const follow = (event: StorageEvent): void => {
    if (event.key === storedName(NAME)) settings.value = stored();
  };
  window.addEventListener("storage", follow);
  return () => window.removeEventListener("storage", follow);
}

/** What is stored is only taken where it has the right type: it may be of another version of the page. */
function stored(): Settings {
  const fits = Object.entries(parsed(readValue("local", NAME) ?? "{}")).filter(([key, value]) =>
    Object.hasOwn(CHECKS, key) ? CHECKS[key as keyof Settings](value) : false,
  );
  return { ...DEFAULTS, ...(Object.fromEntries(fits) as Partial<Settings>) };
}

function parsed(text: string): object {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null ? value : {};
  } catch {
    return {};
  }
}
