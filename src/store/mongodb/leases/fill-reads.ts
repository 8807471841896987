import type { Timestamp } from 'mongodb';

import { type Clock, Deadline } from '../../../keys/clock.js';
import type { FoundKey } from '../../port.js';
import type { Connection } from '../connection.js';
import type { Reads } from '../read.js';

interface Wanted {
  readonly keyspace: string;
  readonly digest: Uint8Array;
  /** What is answered is as of no earlier than this time of the database. */
  readonly since: Timestamp;
  readonly resolve: (found: FoundKey | undefined) => void;
  readonly reject: (reason: unknown) => void;
}

const READ_MS_MAX = 5000;
const TOGETHER_MAX = 500;
const ROUNDS_MAX = 2;

/** Reads what memory lacks, many keys in one read: those that are asked for while others are read come next. */
export class FillReads {
  readonly #reads: Reads;
  readonly #connection: Connection;
  readonly #clock: Clock;
  readonly #wanted: Wanted[] = [];
  #rounds = 0;

  constructor(reads: Reads, connection: Connection, clock: Clock) {
    this.#reads = reads;
    this.#connection = connection;
    this.#clock = clock;
  }

  /** @throws StoreFault */
  read(keyspace: string, digest: Uint8Array, since: Timestamp): Promise<FoundKey | undefined> {
    return new Promise((resolve, reject) => {
      this.#wanted.push({ keyspace, digest, since, resolve, reject });
      // After this turn: what else is asked for in it goes along.
      if (this.#wanted.length === 1) queueMicrotask(() => this.#next());
    });
  }

  #next(): void {
    while (this.#wanted.length > 0 && this.#rounds < ROUNDS_MAX) {
      this.#rounds += 1;
      void this.#round(this.#wanted.splice(0, TOGETHER_MAX)).finally(() => {
        this.#rounds -= 1;
        this.#next();
      });
    }
  }

  /** Never rejects. */
  async #round(wanted: readonly Wanted[]): Promise<void> {
    try {
      const since = wanted.map((one) => one.since).reduce((a, b) => (a.greaterThan(b) ? a : b));
      const found = await this.#connection.run(() =>
        this.#connection.after(since, Deadline.after(READ_MS_MAX, this.#clock), (ask) =>
          this.#reads.findByDigests(ask, wanted),
        ),
      );
      wanted.forEach(({ resolve }, at) => resolve(found[at]));
    } catch (error) {
      for (const { reject } of wanted) reject(error);
    }
  }
}
