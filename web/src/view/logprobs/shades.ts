/** Puts the probability of a token into one of five shades, and into words. */
import type { TokenLogprob } from "../../api/types";

/** 0: what the model was sure of, to 4: what it hardly expected itself. Each shade begins at a probability. */
export const SHADES = [0.9, 0.6, 0.3, 0.1, 0] as const;

export function shadeOf(logprob: number): number {
  const probability = Math.exp(logprob);
  return SHADES.findIndex((least) => probability >= least);
}

/** The drawn token and its rivals, likeliest first; the drawn one once, even where it is among the rivals. */
export function candidatesOf(token: TokenLogprob): { token: string; logprob: number; drawn: boolean }[] {
  const rivals = token.rivals
    .filter((rival) => rival.token !== token.token)
    .map((rival) => ({ ...rival, drawn: false }));
  const drawn = { token: token.token, logprob: token.logprob, drawn: true };
  return [drawn, ...rivals].sort((a, b) => b.logprob - a.logprob);
}

/** A token with its white space made visible: `·` for spaces, `↵` for line breaks, `⇥` for tabs. */
export function visible(token: string): string {
  return token.replaceAll(" ", "·").replaceAll("\n", "↵").replaceAll("\t", "⇥");
}

/** Where parts of at least `least` tokens begin; each ends with a line, so that it can be laid out by itself. */
export function partsOf(tokens: readonly TokenLogprob[], least: number): number[] {
  const starts = tokens.length > 0 ? [0] : [];
  tokens.forEach(({ token }, i) => {
    const isLong = i + 1 - (starts.at(-1) ?? 0) >= least;
    if (isLong && token.endsWith("\n") && i + 1 < tokens.length) starts.push(i + 1);
  });
  return starts;
}
