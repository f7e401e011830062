/** A pause that can be cut short. */
export class Waiter {
  readonly over: Promise<void>;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #done: () => void = () => undefined;

  /** `ms` may be Infinity: until `wake`. */
  constructor(ms: number) {
    this.over = new Promise((resolve) => (this.#done = resolve));
    if (Number.isFinite(ms)) this.#timer = setTimeout(this.#done, ms);
  }

  wake(): void {
    clearTimeout(this.#timer);
    this.#done();
  }
}
