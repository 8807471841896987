/** Upper bounds of buckets, in seconds, from a verification in memory to a call that its deadline ends. */
export const CALL_BOUNDS = [
  ...[5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3],
  ...[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10],
];

/** For what waits on other replicas, which may take a lease. */
export const WAIT_BOUNDS = [1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30];

/** How long things took, counted in buckets. Cheap: it is kept at every call, and read when somebody asks. */
export class Latencies {
  /** In seconds, ascending. */
  readonly bounds: readonly number[];
  readonly #boundsMs: readonly number[];
  readonly #counts: number[];
  #sumMs = 0;

  constructor(bounds: readonly number[] = CALL_BOUNDS) {
    this.bounds = bounds;
    this.#boundsMs = bounds.map((seconds) => seconds * 1000);
    this.#counts = Array.from({ length: bounds.length + 1 }, () => 0);
  }

  add(ms: number): void {
    let at = 0;
    // Past the last bound there is none: the bucket behind it takes all.
    while (ms > (this.#boundsMs[at] ?? Number.POSITIVE_INFINITY)) at += 1;
    this.#counts[at] = (this.#counts[at] ?? 0) + 1;
    this.#sumMs += ms;
  }

  /** How many took no longer than each bound, and then how many there were. */
  get cumulated(): number[] {
    let sum = 0;
    return this.#counts.map((count) => (sum += count));
  }

  /** Seconds that all of them took together. */
  get sum(): number {
    return this.#sumMs / 1000;
  }
}
