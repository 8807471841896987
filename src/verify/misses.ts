/** More verifications of a caller wait for the store than it may have waiting: it is to ask again, more slowly. */
export class Overloaded extends Error {
  override readonly name = 'Overloaded';
}

/**
 * Bounds what memory cannot answer, by caller: whoever asks for what does not exist, in whatever numbers, keeps only
 * itself waiting. The checksum is public, so well-formed noise does reach the store.
 */
export class Misses {
  readonly #max: number;
  readonly #waiting = new Map<string, number>();
  #turnedDown = 0;

  /** @param max how many of a caller may be under way at once */
  constructor(max: number) {
    this.#max = max;
  }

  /** How many are under way. */
  get waiting(): number {
    return [...this.#waiting.values()].reduce((sum, of) => sum + of, 0);
  }

  /** How many were too many. */
  get turnedDown(): number {
    return this.#turnedDown;
  }

  /**
   * One more is under way, until `leave`.
   * @throws Overloaded
   */
  enter(caller: string): void {
    const waiting = this.#waiting.get(caller) ?? 0;
    if (waiting >= this.#max) {
      this.#turnedDown += 1;
      throw new Overloaded(`${this.#max} verifications wait for the store`);
    }
    this.#waiting.set(caller, waiting + 1);
  }

  leave(caller: string): void {
    const left = (this.#waiting.get(caller) ?? 1) - 1;
    if (left > 0) this.#waiting.set(caller, left);
    else this.#waiting.delete(caller);
  }
}
