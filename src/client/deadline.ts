/** Until when an answer is wanted, by the monotonic clock. */
export class Deadline {
  readonly #timeoutMs: number;
  readonly #endMs: number;

  /** @throws TypeError unless it is a time */
  constructor(timeoutMs: number) {
    if (!(timeoutMs > 0 && timeoutMs <= TIMEOUT_MS_MAX)) {
      throw new TypeError(`timeoutMs: expected more than 0 and at most ${TIMEOUT_MS_MAX}`);
    }
    this.#timeoutMs = timeoutMs;
    this.#endMs = performance.now() + timeoutMs;
  }

  get leftMs(): number {
    return this.#endMs - performance.now();
  }

  /** For one try of a read: so much less than the whole that another replica can be asked when this one is silent. */
  get tryMs(): number {
    return Math.min(this.leftMs, this.#timeoutMs / 3);
  }
}

// Above it a timer of Node's would go off at once.
const TIMEOUT_MS_MAX = 2 ** 31 - 1;
