/** Adds up the seconds between its starts and stops. */
export class Stopwatch {
  #before: number;
  #since: number | undefined;

  constructor(seconds = 0) {
    this.#before = seconds;
  }

  start(): void {
    this.#since ??= Date.now();
  }

  stop(): void {
    this.#before = this.seconds;
    this.#since = undefined;
  }

  get seconds(): number {
    return this.#before + (this.#since === undefined ? 0 : (Date.now() - this.#since) / 1000);
  }
}
