/**
 * One replica's life among those that answer from memory, from joining to leaving or to the loss of its place. It has a
 * document of its own, whose number it raises to renew its lease, and in which it says until when it was told of every
 * change.
 */
import { randomUUID } from 'node:crypto';
import { type Document, Int32, Long, type Timestamp } from 'mongodb';

import { type Clock, Deadline } from '../../../keys/clock.js';
import { organizationPath, type VerifiableOrganization } from '../../../keys/organization.js';
import type { Follower } from '../../port.js';
import { type Bounds, type Connection, FLEETING } from '../connection.js';
import { Feed, type FeedEvent } from './feed.js';
import { Lease } from './lease.js';
import type { OrganizationRow, ReplicaRow } from '../rows.js';
import type { Collections } from '../schema.js';
import { StreamCheck } from './stream-check.js';
import { RECORDS, tell } from './tell.js';

/** The lease's length, unless it is set. It outlasts an election of a replica set that is set up for it. */
export const LEASE_MS = 15_000;

// Several attempts fail before the lease does, and the stream is left for another one while there is time for that.
const RENEWALS = 5;
const PATIENCE = 1 / 3;
// A stream goes on from where it was through all that was written since, and that can be more than it ever catches up with.
const CATCHING_UP = 2 / 3;
const BEGIN_MS_MAX = 5000;
const LEAVE_MS_MAX = 5000;
const ORGANIZATIONS_MAX = 50_000;
const COMPARED_AT_ONCE = 100;

export interface MembershipParts {
  readonly connection: Connection;
  readonly collections: Pick<Collections, 'replicas' | 'organizations'>;
  readonly follower: Follower;
  readonly leaseMs: number;
  readonly clock: Clock;
  /** Told of the fence when all before it was told to the follower. */
  readonly onFence: (count: number, time: Timestamp) => void;
}

/** The replica is not among the others any more: what it keeps may be old. */
export class Expelled extends Error {
  override readonly name = 'Expelled';
}

export class Membership {
  readonly #id: string = randomUUID();
  readonly #parts: MembershipParts;
  readonly #lease: Lease;
  readonly #feed: Feed;
  readonly #renewMs: number;
  /** As of a change of a single document: in the middle of a transaction nothing is acknowledged. */
  #applied: Timestamp;
  readonly #check = new StreamCheck(ORGANIZATIONS_MAX);
  #isJoined = false;
  /** Writes that may make its document. */
  readonly #joining = new Set<Promise<unknown>>();
  #acknowledging = false;
  #openedMs: number;
  /** Since when renewals are written, one after the other, and none is seen. */
  #unseenSinceMs: number | undefined;

  private constructor(parts: MembershipParts, from: Timestamp) {
    const { connection, leaseMs, clock } = parts;
    this.#parts = parts;
    this.#lease = new Lease(leaseMs, clock);
    this.#renewMs = leaseMs / RENEWALS;
    this.#openedMs = clock.monotonicMs();
    this.#applied = from;
    const filter = [{ $match: concerning(this.#id) }];
    this.#feed = new Feed({ connection, from, filter, apply: (event) => this.#apply(event) });
  }

  /** Takes a place in time: what is changed from then on will be told. */
  static async begin(parts: MembershipParts): Promise<Membership> {
    const { connection, clock } = parts;
    const { operationTime } = (await connection.ask(Deadline.after(BEGIN_MS_MAX, clock))(({ maxTimeMS }) =>
      connection.db.command({ ping: 1, maxTimeMS }),
    )) as { operationTime?: Timestamp };
    if (!operationTime) throw new Error('the server told no operation time');
    return new Membership(parts, operationTime);
  }

  /** Whether the follower was told of every change for which an enforcement has been answered `complete`. */
  holds(): boolean {
    return this.#lease.holds();
  }

  /** For how long `holds` is true if nothing more is told. */
  get leaseRemainingMs(): number {
    return this.#lease.remainingMs;
  }

  /** Why no change can be told of now; undefined: nothing is known to be wrong. */
  get trouble(): unknown {
    return this.#feed.trouble;
  }

  /** The follower was told of every change until then, and perhaps of a part of the next one. */
  get position(): Timestamp {
    return this.#feed.position;
  }

  /**
   * Joins, tells the follower of changes and renews the lease, until it is ended.
   * @throws Expelled, Untold, or what the server says, where the place is lost; the lease is over then
   */
  async live(ended: AbortSignal): Promise<void> {
    const timer = setInterval(() => this.#tick(), this.#renewMs);
    void this.#renew();
    try {
      await this.#feed.run(ended);
    } finally {
      clearInterval(timer);
      this.#lease.end();
    }
  }

  /** Serves nothing more, and says so. */
  async leave(): Promise<void> {
    this.#lease.end();
    const { connection, collections, clock } = this.#parts;
    // One that came after the deletion would make it again.
    await Promise.allSettled(this.#joining);
    await connection.ask(Deadline.after(LEAVE_MS_MAX, clock))((bounds) =>
      collections.replicas.deleteOne({ _id: this.#id }, bounds),
    );
  }

  #tick(): void {
    const { clock, leaseMs } = this.#parts;
    const nowMs = clock.monotonicMs();
    if (!this.holds() && nowMs - (this.#unseenSinceMs ?? nowMs) > leaseMs * CATCHING_UP) {
      this.#feed.fail(new Expelled('its change stream is too far behind'));
      return;
    }
    // After a failover a stream may say nothing for longer than the lease lasts.
    if (nowMs - Math.max(this.#lease.provenMs, this.#openedMs) > leaseMs * PATIENCE) {
      this.#openedMs = nowMs;
      this.#feed.reopen();
    }
    void this.#renew();
    void this.#readStored();
  }

  /** What was read of an organization since this replica has had its place, perhaps before its change is told of. */
  noteRead(organization: VerifiableOrganization): void {
    this.#check.read(organizationPath(organization), organization.revision);
  }

  /** Never rejects: the next time will do. */
  async #readStored(): Promise<void> {
    const { connection, collections, clock } = this.#parts;
    const paths = this.#check.next(COMPARED_AT_ONCE);
    if (paths.length === 0) return;
    const filter = { _id: { $in: paths } };
    try {
      const rows = await connection.after(this.position, Deadline.after(BEGIN_MS_MAX, clock), (ask) =>
        ask((bounds) => collections.organizations.find(filter, { ...bounds, projection: { revision: 1 } }).toArray()),
      );
      const revisions = new Map(rows.map(({ _id, revision }) => [_id, Number(revision)]));
      this.#check.expect(revisions, this.#lease.draw());
    } catch {
      // Nothing was learned.
    }
  }

  /** Does not wait for the attempt before. Never rejects: another one follows. */
  async #renew(): Promise<void> {
    const { connection, collections, leaseMs, clock } = this.#parts;
    const number = this.#lease.draw();
    // An attempt that was held up on its way does not undo a later one.
    const filter = { _id: this.#id, number: { $lt: Long.fromNumber(number) } };
    const renewal = { $set: { number: Long.fromNumber(number) }, $max: { applied: this.#applied } };
    // Until its document is seen it may not be there. Once it was, it must not come back: others have removed it.
    const first = { ...renewal, $setOnInsert: { lease_ms: new Int32(leaseMs) } };
    const write = this.#isJoined
      ? (bounds: Bounds) => collections.replicas.updateOne(filter, renewal, { ...bounds, writeConcern: FLEETING })
      : (bounds: Bounds) => this.#join(collections.replicas.updateOne(filter, first, { ...bounds, upsert: true }));
    try {
      await connection.ask(Deadline.after(leaseMs, clock))(write);
      if (!this.#lease.isProven(number)) this.#unseenSinceMs ??= clock.monotonicMs();
    } catch {
      // The lease runs on to its end.
      this.#unseenSinceMs = undefined;
    }
  }

  /** The driver's own call: it may outlast whoever waits for it. */
  #join<T>(write: Promise<T>): Promise<T> {
    const ended = () => this.#joining.delete(write);
    write.then(ended, ended);
    this.#joining.add(write);
    return write;
  }

  #apply(event: FeedEvent): void {
    const { ns, operationType, documentKey, fullDocument, updateDescription, clusterTime } = event;
    const collection = ns?.coll ?? '';
    if (!['insert', 'replace', 'update', 'delete'].includes(operationType)) {
      throw new Expelled(`MongoDB tells of a change that no replica makes: ${operationType}`);
    }
    if ((RECORDS as readonly string[]).includes(collection)) {
      tell(this.#parts.follower, event);
      // Both times that a change writes it: the second is none where nothing else is different.
      const { revision } = (fullDocument ?? updateDescription?.updatedFields ?? {}) as Partial<OrganizationRow>;
      if (collection === 'organizations' && revision !== undefined) {
        this.#check.told(String(documentKey?._id), Number(revision));
      }
      return;
    }
    // What follows is written outside of transactions, so all before it is whole.
    this.#applied = clusterTime;
    const written = fullDocument ?? updateDescription?.updatedFields ?? {};
    if (collection === 'meta') {
      if (operationType !== 'delete') this.#parts.onFence(Number(written.count), clusterTime);
      void this.#acknowledge();
    } else if (operationType === 'delete') {
      throw new Expelled('another process has removed this replica from the others');
    } else {
      this.#isJoined = true;
      const number = Number((written as Pick<ReplicaRow, 'number'>).number);
      this.#check.seen(number);
      this.#lease.prove(number);
      this.#unseenSinceMs = undefined;
    }
  }

  /** One at a time, the latest. Never rejects: a renewal says the same. */
  async #acknowledge(): Promise<void> {
    if (this.#acknowledging) return;
    this.#acknowledging = true;
    const { connection, collections, clock } = this.#parts;
    let said: Timestamp | undefined;
    try {
      while (said !== this.#applied) {
        const applied = (said = this.#applied);
        await connection.ask(Deadline.after(this.#renewMs, clock))((bounds) =>
          collections.replicas.updateOne(
            { _id: this.#id },
            { $max: { applied } },
            { ...bounds, writeConcern: FLEETING },
          ),
        );
      }
    } catch {
      // Whoever waits for it waits a little longer.
    } finally {
      this.#acknowledging = false;
    }
  }
}

/** Of all that is written to the database, what a replica has to be told of; not what it writes itself to say so. */
function concerning(id: string): Document {
  return {
    $or: [
      { 'ns.coll': { $in: RECORDS } },
      { 'ns.coll': 'meta', 'documentKey._id': 'fence' },
      { 'ns.coll': 'replicas', 'documentKey._id': id, operationType: { $ne: 'update' } },
      { 'ns.coll': 'replicas', 'documentKey._id': id, 'updateDescription.updatedFields.number': { $exists: true } },
      // Of a whole collection, or of the database.
      { operationType: { $nin: ['insert', 'update', 'replace', 'delete'] } },
    ],
  };
}
