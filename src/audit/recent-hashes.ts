/**
 * How far back of its organization's last event a repeat is told from a fork. A relay repeats what it published and
 * could not mark, one batch of at most 500 events, so this is ample; and it bounds memory at 128 KiB an organization.
 */
export const RECENT_EVENTS = 4096;

const HASH_BYTES = 32;

/** The hashes of an organization's last events, by sequence. */
export class RecentHashes {
  #slots = Buffer.alloc(2 * HASH_BYTES);
  /** The first that it was told of, and the last. */
  readonly #first: number;
  #last: number;

  /** Knows nothing up to `sequence`. */
  constructor(sequence: number) {
    this.#first = sequence + 1;
    this.#last = sequence;
  }

  /** @param hash 64 hex digits */
  set(sequence: number, hash: string): void {
    for (let missing = Math.max(this.#last + 1, sequence - RECENT_EVENTS); missing < sequence; missing += 1) {
      this.#slot(missing).fill(0);
    }
    this.#last = Math.max(this.#last, sequence);
    this.#slot(sequence).write(hash, 'hex');
  }

  /** `missing`: never told, though later ones were. `unknown`: too far back. */
  get(sequence: number): { hash: string } | 'missing' | 'unknown' {
    if (sequence < this.#first || sequence > this.#last || sequence <= this.#last - RECENT_EVENTS) return 'unknown';
    const hash = this.#slot(sequence).toString('hex');
    return hash === NO_HASH ? 'missing' : { hash };
  }

  #slot(sequence: number): Buffer {
    const start = ((sequence - this.#first) % RECENT_EVENTS) * HASH_BYTES;
    if (start >= this.#slots.length) {
      const grown = Buffer.alloc(Math.min(2 * start, RECENT_EVENTS * HASH_BYTES));
      this.#slots.copy(grown);
      this.#slots = grown;
    }
    return this.#slots.subarray(start, start + HASH_BYTES);
  }
}

/** No event's hash: to find content that has it is as hard as to forge one. */
const NO_HASH = '0'.repeat(2 * HASH_BYTES);
