/** Reads the numbers of the settings as they are typed. Empty means that the server decides. */

export type Problem =
  | { kind: "number" }
  | { kind: "whole" }
  | { kind: "range"; least: number; most: number }
  | { kind: "above"; least: number; most: number };

export interface Rule {
  least: number;
  most: number;
  whole?: boolean;
  /** `least` itself is not allowed. */
  above?: boolean;
}

export const RULES = {
  temperature: { least: 0, most: 2 },
  topP: { least: 0, most: 1, above: true },
  maxTokens: { least: 1, most: 1_000_000, whole: true },
  seed: { least: 0, most: Number.MAX_SAFE_INTEGER, whole: true },
  thoughtBudget: { least: 0, most: 1_000_000, whole: true },
  logprobs: { least: 0, most: 20, whole: true },
} as const satisfies Record<string, Rule>;

export const MAX_SYSTEM = 200_000; // characters

const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/iu;
const GROUPED = /^\d{1,3}([ '\u00a0\u202f]\d{3})+$/u;

/** The number that `text` spells. A decimal comma is understood, also the one of a Chinese keyboard's full-width digits. */
export function readNumber(text: string, rule: Rule): { value: number | undefined } | { problem: Problem } {
  const plain = text.normalize("NFKC").trim();
  if (plain === "") return { value: undefined };
  const spelled = GROUPED.test(plain) ? plain.replace(/\D/gu, "") : plain.replace(/^([+-]?\d*),(\d+)$/u, "$1.$2");
  const value = NUMBER.test(spelled) ? Number(spelled) : Number.NaN;
  const { least, most } = rule;
  if (!Number.isFinite(value)) return { problem: { kind: rule.whole ? "whole" : "number" } };
  if (rule.whole && !Number.isInteger(value)) return { problem: { kind: "whole" } };
  if (rule.above ? value <= least : value < least) return { problem: outside(rule) };
  return value > most ? { problem: outside(rule) } : { value };
}

function outside({ above, least, most }: Rule): Problem {
  return { kind: above ? "above" : "range", least, most };
}

export type KeyProblem = "empty" | "characters";

/** What is wrong with an API key: it travels in a header, so it has visible ASCII characters only. */
export function keyProblem(key: string): KeyProblem | null {
  if (key === "") return "empty";
  return /^[\u0021-\u007e]+$/u.test(key) ? null : "characters";
}

/** "1.2 MB". */
export function size(bytes: number, locale: string): string {
  const units = ["byte", "kilobyte", "megabyte", "gigabyte", "terabyte"];
  const power = Math.min(units.length - 1, Math.max(0, Math.floor(Math.log10(Math.max(1, bytes)) / 3)));
  const value = bytes / 1000 ** power;
  const digits = { maximumFractionDigits: value < 10 && power > 0 ? 1 : 0 };
  return new Intl.NumberFormat(locale, { style: "unit", unit: units[power] as string, ...digits }).format(value);
}
