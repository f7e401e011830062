/** Tokens as they come: how many, and how many per second over the last seconds. */
import type { AnswerEvent } from "../api/types";

const WINDOW = 5000; // ms
const SPACING = 200; // ms between two samples
const LEAST = 600; // ms that say something

export class Speed {
  #samples: { at: number; tokens: number }[] = [];
  #tokens = 0;

  reset(): void {
    this.#samples = [];
  }

  /** Counts tokens that have just come; returns the rate, once it can be told. */
  add(tokens: number, at = Date.now()): number | undefined {
    this.#tokens += tokens;
    const last = this.#samples.at(-1);
    if (!last || at - last.at >= SPACING) this.#samples.push({ at, tokens: this.#tokens });
    while (this.#samples.length > 2 && at - (this.#samples[0]?.at ?? at) > WINDOW) this.#samples.shift();
    const first = this.#samples[0];
    if (!first || at - first.at < LEAST) return undefined;
    return ((this.#tokens - first.tokens) * 1000) / (at - first.at);
  }
}

/** Counts the tokens of a response by the server's count, or as well as can be told. */
export class TokenCount {
  #last: number | undefined; // the server's count, where the page knows it

  constructor(isNew: boolean) {
    this.#last = isNew ? 0 : undefined;
  }

  /** The tokens that an event brings. */
  of(event: Extract<AnswerEvent, { type: "thought" | "text" }>): number {
    if (event.tokens === undefined) return event.logprobs?.length ?? (event.text === "" ? 0 : 1);
    const before = this.#last ?? event.tokens - 1;
    this.#last = event.tokens;
    return Math.max(0, event.tokens - before);
  }
}
