import { Long, type Timestamp } from 'mongodb';

import { type Clock, Deadline } from '../../../keys/clock.js';
import type { Connection } from '../connection.js';
import type { ReplicaRow } from '../rows.js';
import type { Collections } from '../schema.js';

/** How much longer than a lease others wait until it is over for certain: clocks differ by less in that time. */
export const DRIFT = 1.2;

export interface Member {
  readonly id: string;
  readonly applied: Timestamp;
  readonly leaseMs: number;
}

const LOOK_MS_MAX = 5000;
/** In the time of a lease. */
const LOOKS = 5;

/** The replicas that may answer from memory, as the database has them. */
export class Members {
  readonly #connection: Connection;
  readonly #replicas: Collections['replicas'];
  readonly #leaseMs: number;
  readonly #clock: Clock;
  /** Since when a replica's number stands still, on the monotonic clock, by its id. */
  readonly #still = new Map<string, { readonly number: number; readonly sinceMs: number }>();
  #longestMs: number;

  /** @param leaseMs this replica's: how often it looks after the others */
  constructor(connection: Connection, { replicas }: Pick<Collections, 'replicas'>, leaseMs: number, clock: Clock) {
    this.#connection = connection;
    this.#replicas = replicas;
    this.#leaseMs = leaseMs;
    this.#longestMs = leaseMs;
    this.#clock = clock;
  }

  /** How many they were when they were read last. */
  get count(): number {
    return this.#still.size;
  }

  /** The longest lease that one of them had when they were read last. */
  get longestMs(): number {
    return this.#longestMs;
  }

  /** All of them that joined until that time of the database, and have not left since. */
  async at(time: Timestamp, deadline: Deadline): Promise<Member[]> {
    const rows = await this.#connection.after(time, deadline, (ask) =>
      ask((bounds) => this.#replicas.find({}, bounds).toArray()),
    );
    this.#see(rows);
    return rows.map((row) => ({ id: row._id, applied: row.applied, leaseMs: Number(row.lease_ms) }));
  }

  /** What these say that they have applied, by their ids. It may come from a server that does not know all of them. */
  async applied(ids: readonly string[], deadline: Deadline): Promise<ReadonlyMap<string, Timestamp>> {
    const rows = await this.#connection.ask(deadline)((bounds) =>
      this.#replicas.find({ _id: { $in: [...ids] } }, { ...bounds, readConcern: 'local' }).toArray(),
    );
    return new Map(rows.map(({ _id, applied }) => [_id, applied]));
  }

  /** Removes those whose lease is over for certain, until it is ended. Never rejects. */
  async removeDead(ended: AbortSignal): Promise<void> {
    do await this.#removeDead().catch(() => undefined);
    while (await this.#connection.pause(this.#leaseMs / LOOKS, ended));
  }

  async #removeDead(): Promise<void> {
    const inTime = () => this.#connection.ask(Deadline.after(LOOK_MS_MAX, this.#clock));
    const rows = await inTime()((bounds) => this.#replicas.find({}, bounds).toArray());
    this.#see(rows);
    const nowMs = this.#clock.monotonicMs();
    for (const { _id, number, lease_ms } of rows) {
      const still = this.#still.get(_id);
      if (!still || nowMs - still.sinceMs < DRIFT * Number(lease_ms)) continue;
      // Unless it has been renewed since.
      const asSeen = { _id, number: Long.fromNumber(Number(number)) };
      await inTime()((bounds) => this.#replicas.deleteOne(asSeen, bounds));
    }
  }

  #see(rows: readonly ReplicaRow[]): void {
    const nowMs = this.#clock.monotonicMs();
    this.#longestMs = Math.max(this.#leaseMs, ...rows.map((row) => Number(row.lease_ms)));
    const ids = new Set(rows.map(({ _id }) => _id));
    for (const id of this.#still.keys()) if (!ids.has(id)) this.#still.delete(id);
    for (const { _id, number } of rows) {
      if (this.#still.get(_id)?.number !== Number(number))
        this.#still.set(_id, { number: Number(number), sinceMs: nowMs });
    }
  }
}
