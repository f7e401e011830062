/**
 * A text that grows by small pieces, and a signal that shows it, set at most once in a frame.
 *
 * A piece costs no copy of the text before it. Nothing is shown while the tab is hidden; `all` is always exact.
 */
import { signal, type Signal } from "@preact/signals";

export class Pieces {
  readonly shown: Signal<string>;
  #all: string;
  #new: string[] = [];

  constructor(start = "") {
    this.#all = start;
    this.shown = signal(start);
  }

  add(piece: string): void {
    if (piece === "") return;
    this.#new.push(piece);
    waiting.add(this);
    schedule();
  }

  get all(): string {
    if (this.#new.length > 0) {
      this.#all += this.#new.join("");
      this.#new = [];
    }
    return this.#all;
  }

  show(): void {
    waiting.delete(this);
    this.shown.value = this.all;
  }
}

const waiting = new Set<Pieces>();
let isScheduled = false;

function schedule(): void {
  if (isScheduled) return;
  isScheduled = true;
  if (typeof requestAnimationFrame === "undefined") setTimeout(showAll, 16);
  else requestAnimationFrame(showAll);
}

function showAll(): void {
  isScheduled = false;
  for (const pieces of waiting) pieces.show();
}
