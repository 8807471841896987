/** Time, given to whatever needs it, so that a test can set it. */
export interface Clock {
  /** The wall clock: for times that are stored or compared with stored ones. */
  now(): Date;
  /** Milliseconds that never run backwards, from an arbitrary start: for time-outs and deadlines. */
  monotonicMs(): number;
}

export const systemClock: Clock = {
  now: () => new Date(),
  monotonicMs: () => performance.now(),
};

/** Until when an answer is still wanted, on the monotonic clock. */
export class Deadline {
  readonly #clock: Clock;
  readonly #endMs: number;

  private constructor(clock: Clock, endMs: number) {
    this.#clock = clock;
    this.#endMs = endMs;
  }

  /** @param fromMs on the monotonic clock; now where it is absent */
  static after(ms: number, clock: Clock, fromMs = clock.monotonicMs()): Deadline {
    return new Deadline(clock, fromMs + ms);
  }

  /** Milliseconds left, 0 once it has passed. */
  remainingMs(): number {
    return Math.max(0, this.#endMs - this.#clock.monotonicMs());
  }

  get passed(): boolean {
    return this.remainingMs() === 0;
  }
}
