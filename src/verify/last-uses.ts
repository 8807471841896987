/**
 * When keys were last used: gathered in memory and written every few seconds, never at a verification. A process that is
 * killed loses what it gathered since; one that is stopped writes it first.
 */
import { type Clock, Deadline } from '../keys/clock.js';
import type { Log } from '../log.js';
import type { Store } from '../store/port.js';
import { endedBy } from './patience.js';

export interface LastUsesParts {
  readonly store: Pick<Store, 'recordUses'>;
  readonly clock: Clock;
  readonly log: Log;
  /** For tests. */
  readonly keysMax?: number;
}

/** How often they are written: what a kill loses at the most. */
export const USES_WRITTEN_EVERY_MS = 5000;
/** As much memory as they may take while the store is away, some 15 MB. */
const KEYS_MAX = 100_000;
/** Written at once: an embedded store serves nobody else meanwhile. */
const BATCH_KEYS = 1000;
/** Brought into the order of their ids at once, so that a batch touches few of the store's pages. */
const SORTED_KEYS = 10 * BATCH_KEYS;
const WRITE_MS_MAX = 4000;

/** Its owner ends it: until then it writes every few seconds. */
export class LastUses {
  readonly #store: LastUsesParts['store'];
  readonly #log: Log;
  readonly #keysMax: number;
  /** By key, in the order in which they came to wait. */
  readonly #noted = new Map<string, Date>();
  /** Of those that waited longest, by id. What one writing leaves over is the next one's first. */
  #sorted: string[] = [];
  #writing = Promise.resolve();
  readonly #timer: NodeJS.Timeout;
  /** What was told of, and is not over. */
  readonly #told = { failing: false, full: false };
  readonly #counts = { written: 0, lost: 0 };

  constructor({ store, clock, log, keysMax = KEYS_MAX }: LastUsesParts) {
    this.#store = store;
    this.#log = log;
    this.#keysMax = keysMax;
    this.#timer = setInterval(() => void this.#write(() => Deadline.after(WRITE_MS_MAX, clock)), USES_WRITTEN_EVERY_MS);
  }

  note(keyId: string, at: Date): void {
    const before = this.#noted.get(keyId);
    if (before && before.getTime() >= at.getTime()) return;
    // It keeps its place: taking it out first would cost each verification more.
    this.#noted.set(keyId, at);
    this.#makeRoom();
  }

  /** Keys whose last use is not written, and how many were written and lost for want of room since it began. */
  get counts(): { readonly pending: number; readonly written: number; readonly lost: number } {
    return { pending: this.#noted.size, ...this.#counts };
  }

  /** Writes what was gathered. Nothing may be noted any more. */
  async end(deadline: Deadline): Promise<void> {
    clearInterval(this.#timer);
    await endedBy(
      deadline,
      this.#write(() => deadline),
    );
    if (this.#noted.size > 0) this.#log.warn({ keys: this.#noted.size }, 'last uses: stopped before all were written');
  }

  /** One writing at a time; the next one begins when the one before has ended. Never rejects. */
  #write(deadline: () => Deadline): Promise<void> {
    this.#writing = this.#writing.then(() => this.#writeAll(deadline()));
    return this.#writing;
  }

  async #writeAll(deadline: Deadline): Promise<void> {
    // Those that are used meanwhile come to wait behind these.
    for (let left = this.#noted.size; left > 0 && !deadline.passed;) {
      const batch = this.#nextBatch(left);
      try {
        await this.#store.recordUses(batch, deadline);
      } catch (error) {
        // They stay noted, and are written with the next ones.
        if (!this.#told.failing) this.#log.warn({ err: error }, 'last uses: cannot be written, they are tried again');
        this.#told.failing = true;
        return;
      }
      left -= batch.size;
      this.#counts.written += batch.size;
      this.#sorted = this.#sorted.slice(BATCH_KEYS);
      for (const [keyId, at] of batch) this.#written(keyId, at);
    }
    if (this.#noted.size > 0 && deadline.passed) return;
    if (this.#told.failing) this.#log.info('last uses: written again');
    this.#told.failing = false;
    this.#told.full = false;
  }

  /** @param left how many were noted before the writing began, and are to be written in it; 1 or more */
  #nextBatch(left: number): Map<string, Date> {
    if (this.#sorted.length === 0) {
      const most = Math.min(SORTED_KEYS, left);
      for (const keyId of this.#noted.keys()) if (this.#sorted.push(keyId) === most) break;
      this.#sorted.sort();
    }
    const batch = new Map<string, Date>();
    for (const keyId of this.#sorted.slice(0, BATCH_KEYS)) {
      const at = this.#noted.get(keyId);
      // Else it was lost for want of room.
      if (at) batch.set(keyId, at);
    }
    return batch;
  }

  /** One that was used again meanwhile is still to be written, after all that wait longer. */
  #written(keyId: string, at: Date): void {
    const latest = this.#noted.get(keyId);
    this.#noted.delete(keyId);
    if (latest && latest !== at) this.#noted.set(keyId, latest);
  }

  #makeRoom(): void {
    if (this.#noted.size <= this.#keysMax) return;
    const [oldest] = this.#noted.keys();
    if (oldest !== undefined) this.#noted.delete(oldest);
    this.#counts.lost += 1;
    if (!this.#told.full) {
      this.#log.warn({ keys: this.#keysMax }, 'last uses: too many to keep, those that wait longest are lost');
    }
    this.#told.full = true;
  }
}
