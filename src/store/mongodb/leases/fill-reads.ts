import type { Timestamp } from 'mongodb';

import { type Clock, Deadline } from '../../../keys/clock.js';
import type { VerifiableOrganization } from '../../../keys/organization.js';
import type { Follower, FoundKey } from '../../port.js';
import type { Connection } from '../connection.js';
import type { OrganizationMemory, Reads } from '../read.js';

/** A replica's place among the others. */
export interface Place {
  /** The time of the database until which it was told of everything. */
  readonly position: Timestamp;
  noteRead(organization: VerifiableOrganization): void;
}

interface Wanted {
  readonly keyspace: string;
  readonly digest: Uint8Array;
  readonly place: Place;
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
  readonly #follower: Pick<Follower, 'knownOrganization'>;
  readonly #wanted: Wanted[] = [];
  #rounds = 0;

  constructor(reads: Reads, connection: Connection, clock: Clock, follower: Pick<Follower, 'knownOrganization'>) {
    this.#follower = follower;
    this.#reads = reads;
    this.#connection = connection;
    this.#clock = clock;
  }

  /** @throws StoreFault */
  read(keyspace: string, digest: Uint8Array, place: Place): Promise<FoundKey | undefined> {
    return new Promise((resolve, reject) => {
      this.#wanted.push({ keyspace, digest, place, since: place.position, resolve, reject });
      // When all sockets that have something have been read: what else they ask for goes along. What comes while as much
      // as may be is being read waits for that.
      if (this.#wanted.length === 1) setImmediate(() => this.#next());
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

  /**
   * A primary that was just elected may read as of a time before what its predecessor acknowledged. Of what is found a later
   * change is told; of what is not there nothing is, so that is looked for again as of a time that is late enough.
   */
  async #find(wanted: readonly Wanted[], since: Timestamp): Promise<(FoundKey | undefined)[]> {
    const deadline = Deadline.after(READ_MS_MAX, this.#clock);
    const places = new Set(wanted.map(({ place }) => place));
    const memory: OrganizationMemory = {
      known: (path) => this.#follower.knownOrganization(path),
      noteRead: (organization) => places.forEach((place) => place.noteRead(organization)),
    };
    const findAfter = (time: Timestamp, some: readonly Wanted[]) =>
      this.#connection.after(time, deadline, (ask) => this.#reads.findByDigests(ask, some, memory));
    const found = await findAfter(since, wanted);
    const missing = wanted.filter((_, at) => !found[at]);
    if (missing.length === 0) return found;
    const { time } = await this.#connection.timed(deadline, (ask) => this.#reads.confirm(ask));
    const again = (await findAfter(time, missing)).values();
    return found.map((one) => one ?? again.next().value);
  }

  /** Never rejects. */
  async #round(wanted: readonly Wanted[]): Promise<void> {
    try {
      const since = wanted.map((one) => one.since).reduce((a, b) => (a.greaterThan(b) ? a : b));
      const found = await this.#connection.run(() => this.#find(wanted, since));
      wanted.forEach(({ resolve }, at) => resolve(found[at]));
    } catch (error) {
      for (const { reject } of wanted) reject(error);
    }
  }
}
