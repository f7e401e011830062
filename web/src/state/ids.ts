/** Ids, seeds and times. `crypto.randomUUID` is missing over plain http. */
import type { Id } from "./conversation";

/** 96 random bits. */
export function newId(): Id {
  return [...crypto.getRandomValues(new Uint32Array(3))].map((part) => part.toString(36).padStart(7, "0")).join("");
}

/** 31 random bits: a seed that every server takes. */
export function randomSeed(): number {
  return (crypto.getRandomValues(new Uint32Array(1))[0] ?? 0) >>> 1;
}

let last = 0;

/** Milliseconds since 1970, never the same twice in a tab: messages are ordered by it. */
export function now(): number {
  last = Math.max(last + 1, Date.now());
  return last;
}
