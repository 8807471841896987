/** The last revision that was told of each organization: how a change that the stream did not tell of is noticed. */
export class Heads {
  readonly #max: number;
  /** By the organizations' paths, the one told of last at the end. */
  readonly #revisions = new Map<string, number>();

  /** @param max of how many organizations */
  constructor(max: number) {
    this.#max = max;
  }

  /**
   * Notes the revision that a change has led to.
   * @returns false where there must have been another one between it and the one told before
   */
  follows(path: string, revision: number): boolean {
    const before = this.#revisions.get(path);
    this.#revisions.delete(path);
    this.#revisions.set(path, revision);
    if (this.#revisions.size > this.#max) {
      const [oldest = path] = this.#revisions.keys();
      this.#revisions.delete(oldest);
    }
    return before === undefined || revision === before + 1;
  }

  /** Those that were told of last. */
  latest(count: number): string[] {
    return [...this.#revisions.keys()].slice(-count);
  }

  /** Whether less was told of one of them than is stored, by their paths. */
  areBehind(stored: ReadonlyMap<string, number>): boolean {
    return [...stored].some(([path, revision]) => (this.#revisions.get(path) ?? revision) < revision);
  }
}
