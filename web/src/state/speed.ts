/** Tokens per second over the last seconds. */

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
