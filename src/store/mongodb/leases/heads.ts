/** The last revision that is known of each organization: how a change that the stream did not tell of is noticed. */
export class Heads {
  readonly #max: number;
  /** By the organizations' paths. */
  readonly #revisions = new Map<string, number>();
  #hand: MapIterator<string> | undefined;

  /** @param max of how many organizations */
  constructor(max: number) {
    this.#max = max;
  }

  /**
   * Notes the revision that a change has led to.
   * @returns false where there must have been another one between it and what was known before
   */
  follows(path: string, revision: number): boolean {
    const before = this.#revisions.get(path) ?? revision;
    this.#keep(path, Math.max(before, revision));
    return revision <= before + 1;
  }

  /** Notes a revision that was read, perhaps before its change is told of, where nothing was known. */
  read(path: string, revision: number): void {
    if (!this.#revisions.has(path)) this.#keep(path, revision);
  }

  /** The next of them, one after the other and from the beginning again. */
  next(count: number): string[] {
    const paths: string[] = [];
    while (paths.length < Math.min(count, this.#revisions.size)) {
      this.#hand ??= this.#revisions.keys();
      const { value, done } = this.#hand.next();
      if (done === true) this.#hand = undefined;
      else paths.push(value);
    }
    return paths;
  }

  /** One of which less is known than is stored, by its path. */
  behind(stored: ReadonlyMap<string, number>): string | undefined {
    for (const [path, revision] of stored) if ((this.#revisions.get(path) ?? revision) < revision) return path;
    return undefined;
  }

  #keep(path: string, revision: number): void {
    this.#revisions.delete(path);
    this.#revisions.set(path, revision);
    if (this.#revisions.size <= this.#max) return;
    const [oldest = path] = this.#revisions.keys();
    this.#revisions.delete(oldest);
  }
}
