/**
 * Whether the stream has told of every change, which the leases rely on. The revisions of an organization have no gaps, so
 * a change that is missing shows at the next one, or when what is stored is compared with what was told.
 */
export class StreamCheck {
  readonly #organizationsMax: number;
  /** The last revision that is known of each organization, by their paths. */
  readonly #revisions = new Map<string, number>();
  #hand: MapIterator<string> | undefined;
  #stored: { readonly number: number; readonly revisions: ReadonlyMap<string, number> } | undefined;

  constructor(organizationsMax: number) {
    this.#organizationsMax = organizationsMax;
  }

  /**
   * A change was told of, which has led to that revision.
   * @throws Untold where there must have been another one between it and what was known before
   */
  told(path: string, revision: number): void {
    const before = this.#revisions.get(path) ?? revision;
    if (revision > before + 1) throw new Untold(path);
    this.#keep(path, Math.max(before, revision));
  }

  /** That revision was read, perhaps before its change is told of. */
  read(path: string, revision: number): void {
    if (!this.#revisions.has(path)) this.#keep(path, revision);
  }

  /**
   * Those to be compared next, one after the other and from the beginning again; none while others are still to be
   * compared.
   */
  next(count: number): string[] {
    const paths: string[] = [];
    while (!this.#stored && paths.length < Math.min(count, this.#revisions.size)) {
      this.#hand ??= this.#revisions.keys();
      const { value, done } = this.#hand.next();
      if (done === true) this.#hand = undefined;
      else paths.push(value);
    }
    return paths;
  }

  /** That was stored of them before the number was drawn. */
  expect(revisions: ReadonlyMap<string, number>, number: number): void {
    this.#stored = { revisions, number };
  }

  /**
   * The number, or a later one, was told of, and so all that was stored before it was drawn.
   * @throws Untold where it was not
   */
  seen(number: number): void {
    if (!this.#stored || number < this.#stored.number) return;
    const { revisions } = this.#stored;
    this.#stored = undefined;
    for (const [path, revision] of revisions) {
      if ((this.#revisions.get(path) ?? revision) < revision) throw new Untold(path);
    }
  }

  #keep(path: string, revision: number): void {
    this.#revisions.delete(path);
    this.#revisions.set(path, revision);
    if (this.#revisions.size <= this.#organizationsMax) return;
    const [oldest = path] = this.#revisions.keys();
    this.#revisions.delete(oldest);
  }
}

/** A stream has no gaps: somebody else has written, or there is a defect. */
export class Untold extends Error {
  override readonly name = 'Untold';

  constructor(organization: string) {
    super(`MongoDB has a change of ${organization} that its change stream has not told of`);
  }
}
