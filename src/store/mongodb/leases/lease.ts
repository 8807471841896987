/**
 * The right to answer from memory: proof, no older than the lease is long, that every change has been told of. Each
 * attempt to renew writes a number; that number, seen among the changes, proves that all before it have been seen. The
 * lease counts from before the attempt, since what was committed later may be missing.
 */
import type { Clock } from '../../../keys/clock.js';

export class Lease {
  readonly #ms: number;
  readonly #clock: Clock;
  /** When each number was drawn, by the number. */
  readonly #drawn = new Map<number, Moment>();
  #last = 0;
  #lastProven = 0;
  #proven: Moment = { monotonicMs: Number.NEGATIVE_INFINITY, wallMs: Number.NEGATIVE_INFINITY };
  #over = false;

  constructor(ms: number, clock: Clock) {
    this.#ms = ms;
    this.#clock = clock;
  }

  /** The number of the next attempt, greater than all before: to be drawn before it is written. */
  draw(): number {
    const now = this.#now();
    for (const [number, { monotonicMs }] of this.#drawn) {
      if (now.monotonicMs - monotonicMs > this.#ms) this.#drawn.delete(number);
    }
    this.#drawn.set((this.#last += 1), now);
    return this.#last;
  }

  /** That number was seen among the changes. */
  prove(number: number): void {
    if (number > this.#lastProven) this.#lastProven = number;
    const moment = this.#drawn.get(number);
    if (!moment || moment.monotonicMs < this.#proven.monotonicMs) return;
    this.#drawn.delete(number);
    this.#proven = moment;
  }

  /** Whether it, or a later one, was seen. */
  isProven(number: number): boolean {
    return number <= this.#lastProven;
  }

  /** For ever: what is seen from now on proves nothing. */
  end(): void {
    this.#over = true;
  }

  /** The wall clock too: the monotonic one stands still while the machine sleeps. */
  holds(): boolean {
    if (this.#over || this.#clock.monotonicMs() - this.#proven.monotonicMs >= this.#ms) return false;
    return this.#clock.now().getTime() - this.#proven.wallMs < this.#ms;
  }

  /** For how long it holds if nothing more is proven; 0: it does not. */
  get remainingMs(): number {
    if (this.#over) return 0;
    const now = this.#now();
    const spentMs = Math.max(now.monotonicMs - this.#proven.monotonicMs, now.wallMs - this.#proven.wallMs);
    return Math.max(0, this.#ms - spentMs);
  }

  /** Since when nothing was proven, on the monotonic clock: `-Infinity` before the first proof. */
  get provenMs(): number {
    return this.#proven.monotonicMs;
  }

  #now(): Moment {
    return { monotonicMs: this.#clock.monotonicMs(), wallMs: this.#clock.now().getTime() };
  }
}

interface Moment {
  readonly monotonicMs: number;
  readonly wallMs: number;
}
