import type { Clock } from '../keys/clock.js';
import type { SinkFault } from './sink.js';

const FIRST_BACKOFF_MS = 200;
const LONGEST_BACKOFF_MS: Record<SinkFault['kind'], number> = {
  // Once the sink is back, this is what its events may still wait.
  unavailable: 5000,
  // Somebody has to change something: trying often would only fill logs.
  refused: 60_000,
};

/** Whether a lane may be sent to now: one publishing at a time, and after a failure a rest that grows. */
export class Lane {
  readonly #clock: Clock;
  #busy = false;
  #failures = 0;
  #retryMs = Number.NEGATIVE_INFINITY;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get busy(): boolean {
    return this.#busy;
  }

  /** Publishings that failed since the last that did not. */
  get failures(): number {
    return this.#failures;
  }

  get ready(): boolean {
    return !this.#busy && this.#clock.monotonicMs() >= this.#retryMs;
  }

  begin(): void {
    this.#busy = true;
  }

  end(): void {
    this.#busy = false;
  }

  succeeded(): void {
    this.#failures = 0;
  }

  failed(kind: SinkFault['kind']): void {
    this.#failures += 1;
    const restMs = Math.min(FIRST_BACKOFF_MS * 2 ** (this.#failures - 1), LONGEST_BACKOFF_MS[kind]);
    // Between half and all of it, so that lanes and replicas do not come back all at once.
    this.#retryMs = this.#clock.monotonicMs() + restMs * (0.5 + Math.random() / 2);
  }

  /** Whatever it waits for, its next try may be now. */
  hurry(): void {
    this.#retryMs = Number.NEGATIVE_INFINITY;
  }
}
