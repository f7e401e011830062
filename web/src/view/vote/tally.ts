/**
 * Counts the boxed answers of a vote's paths, as the server does in `api/vote.py`: answers are compared as text without
 * spaces, dollar signs around them and dots at their end. `1/2` and `0.5` are different.
 */
import { boxedAnswer } from "./boxed";

export interface Path {
  id: string;
  text: string; // the answer so far, without the thought
  running: boolean;
}

export interface Candidate {
  answer: string; // as it was written first
  paths: string[]; // in the order of the vote
}

export interface Tally {
  candidates: Candidate[]; // most votes first; in a tie, the earliest first
  withoutBox: string[]; // finished paths that do not vote
  running: number;
  total: number;
  /** No path that is still running can change the winner. */
  decided: boolean;
}

// What Python's str.split() takes for white space: unlike \s, with four control characters and without U+FEFF.
const MORE_SPACES = "\u001c\u001d\u001e\u001f\u0085";
const SPACES = new RegExp(`(?:[^\\S\\ufeff]|[${MORE_SPACES}])+`, "u");

/** An answer without dollar signs around it, dots at its end and repeated spaces. */
export function normalized(answer: string): string {
  const words = answer.split(SPACES).filter((word) => word !== "");
  return words
    .join(" ")
    .replace(/^[ $]+/u, "")
    .replace(/[ $.]+$/u, "");
}

/** The boxed answer of a text in its readable and its compared form; null if it has none, or an empty one. */
export function ballot(text: string): { shown: string; key: string } | null {
  if (!text.includes("\\boxed")) return null;
  const shown = normalized(boxedAnswer(text) ?? "");
  return shown === "" ? null : { shown, key: shown.replaceAll(" ", "") };
}

/** Counts the paths, which are given in the order of the vote. A path's answer counts as soon as its box is closed. */
export function tally(paths: readonly Path[]): Tally {
  const candidates = new Map<string, Candidate>();
  const withoutBox: string[] = [];
  for (const path of paths) {
    const vote = ballot(path.text);
    if (vote) {
      const candidate = candidates.get(vote.key) ?? { answer: vote.shown, paths: [] };
      candidate.paths.push(path.id);
      candidates.set(vote.key, candidate);
    } else if (!path.running) withoutBox.push(path.id);
  }
  const sorted = [...candidates.values()].sort((a, b) => b.paths.length - a.paths.length); // a stable sort
  const running = paths.filter((path) => path.running);
  return {
    candidates: sorted,
    withoutBox,
    running: running.length,
    total: paths.length,
    decided: isDecided(sorted, running),
  };
}

/** Whether the first candidate stays the first even if all running paths end with the same other answer. */
function isDecided(candidates: readonly Candidate[], running: readonly Path[]): boolean {
  if (running.length === 0) return true;
  const open = new Set(running.map((path) => path.id));
  const [first = 0, ...others] = candidates.map((candidate) => candidate.paths.filter((id) => !open.has(id)).length);
  return first > Math.max(0, ...others) + running.length;
}
