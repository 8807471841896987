import { MongoServerSelectionError } from 'mongodb';

import { type Clock, Deadline } from '../../keys/clock.js';
import { type Organization, organizationPath, type OrganizationRef } from '../../keys/organization.js';
import type { Secret } from '../../keys/secret.js';
import { createLog, type Log } from '../../log.js';
import { StoreFault } from '../faults.js';
import type { Store } from '../port.js';
import { makeBookkeeping } from './bookkeeping.js';
import { makeChange } from './change.js';
import { Connection } from './connection.js';
import { checkElections } from './leases/elections.js';
import { Enforcer } from './leases/enforcement.js';
import { follow } from './leases/follow.js';
import { Members } from './leases/members.js';
import { LEASE_MS } from './leases/membership.js';
import { openOutbox } from './outbox.js';
import { makeReads, type Reads } from './read.js';
import { toKeyspaceRow } from './rows.js';
import { claim, collectionsOf, prepareSchema } from './schema.js';
import { isLoginRefused, toFault } from './trouble.js';

export interface MongoOptions {
  /** Names the replica set's members; a database in its path, `keyreeve` otherwise. Its options come before ours. */
  readonly uri: Secret;
  /** The events' CloudEvents `source`, `urn:keyreeve:<installation>`. */
  readonly source: string;
  readonly clock: Clock;
  /** Told, a line each, what was done to the database to make it usable. */
  readonly report: (line: string) => void;
  /** How long a replica answers from memory after it was last known to be told of every change. Absent: 15 s. */
  readonly leaseMs?: number;
  /** Absent: nothing is said. */
  readonly log?: Log;
}

const OPEN_MS_MAX = 30_000;
const PING_MS_MAX = 2000;
const PAGE_MS_MAX = 5000;
const ORGANIZATIONS_AT_ONCE = 500;

// MongoDB 5.0, the first that reads several times as of one moment outside of transactions.
const WIRE_VERSION_MIN = 13;

/**
 * Opens the store on a replica set.
 * @throws StoreFault if no primary can be reached
 * @throws Error that says why this MongoDB cannot be used, and the way out; never with the URI
 */
export async function openMongoStore({
  uri,
  report,
  leaseMs = LEASE_MS,
  log = createLog('silent'),
  ...options
}: MongoOptions): Promise<Store> {
  try {
    const connection = new Connection(uri);
    try {
      const soon = () => Deadline.after(OPEN_MS_MAX, options.clock);
      await checkReplicaSet(connection, soon());
      await prepareSchema(connection, { soon, report });
      await claim(connection, options.source, soon());
      await checkElections(connection, leaseMs, soon(), log);
      return toStore(connection, { ...options, leaseMs, log });
    } catch (error) {
      await connection[Symbol.asyncDispose]();
      throw error;
    }
  } catch (error) {
    const fault = toFault(error);
    if (!(fault instanceof Error)) throw fault;
    const message = `cannot open the MongoDB store: ${whyNot(error, fault)}`;
    throw fault instanceof StoreFault
      ? new StoreFault(fault.kind, message, { cause: fault.cause })
      : new Error(message, { cause: fault });
  }
}

function toStore(
  connection: Connection,
  { source, clock, leaseMs, log }: Required<Omit<MongoOptions, 'uri' | 'report'>>,
): Store {
  const collections = collectionsOf(connection.db);
  const reads = makeReads(connection, collections);
  const bookkeeping = makeBookkeeping(connection, collections);
  const change = makeChange(connection, collections, reads, { source, clock });
  const { outbox, tellCommit } = openOutbox(connection, collections, clock);
  const members = new Members(connection, collections, leaseMs, clock);
  const enforcer = new Enforcer({ connection, collections, members, clock });
  return {
    change: (load, rule, deadline) =>
      connection.run(async () => {
        const changed = await change(load, rule, deadline);
        if (changed.hasEvents) tellCommit();
        return changed.answer;
      }),
    findByDigest: (keyspace, digest, deadline) => connection.run(() => reads.findByDigest(keyspace, digest, deadline)),
    findOrganization: (organization, deadline) => connection.run(() => reads.findOrganization(organization, deadline)),
    selectKeys: (organization, selector, deadline) =>
      connection.run(() => reads.selectKeys(organization, selector, deadline)),
    listKeys: (organization, query, deadline) => connection.run(() => reads.listKeys(organization, query, deadline)),
    countExpired: (organization, at, deadline) => connection.run(() => reads.countExpired(organization, at, deadline)),
    listEvents: (organization, query, deadline) =>
      connection.run(() => reads.listEvents(organization, query, deadline)),
    organizations: () => eachOrganization(connection, reads, clock),
    recordUses: (uses, deadline) => connection.run(() => bookkeeping.recordUses(uses, deadline)),
    moveDigest: (keyId, from, to, deadline) => connection.run(() => bookkeeping.moveDigest(keyId, from, to, deadline)),
    countDigests: (deadline) => connection.run(() => bookkeeping.countDigests(deadline)),
    hasDigests: (pepperVersion, deadline) => connection.run(() => bookkeeping.hasDigests(pepperVersion, deadline)),
    takeBudget: (ask, deadline) => connection.run(() => bookkeeping.takeBudget(ask, deadline)),
    readBudget: (ask, deadline) => connection.run(() => bookkeeping.readBudget(ask, deadline)),
    isShared: true,
    follow: (follower) =>
      follow({
        connection,
        collections,
        members,
        reads,
        follower,
        leaseMs,
        clock,
        log,
        onFence: (count, time) => enforcer.fenceSeen(count, time),
      }),
    enforce: (deadline) => connection.run(() => enforcer.enforce(deadline)),
    pepperFingerprints: (deadline) => connection.run(() => bookkeeping.pepperFingerprints(deadline)),
    rememberPeppers: (fingerprints, deadline) =>
      connection.run(() => bookkeeping.rememberPeppers(fingerprints, deadline)),
    keyspaceFacts: (deadline) => connection.run(() => reads.keyspaceFacts(deadline)),
    rememberKeyspaces: (facts, deadline) =>
      connection.run(async () => {
        for (const row of facts.map(toKeyspaceRow)) {
          await connection.upsert(deadline, (bounds) =>
            collections.keyspaces.replaceOne({ _id: row._id }, row, { ...bounds, upsert: true }),
          );
        }
      }),
    ping: (deadline) => connection.run(() => ping(connection, reads, deadline, clock)),
    outbox,
    [Symbol.asyncDispose]: () => connection[Symbol.asyncDispose](),
  };
}

async function ping(connection: Connection, reads: Reads, deadline: Deadline, clock: Clock): Promise<void> {
  const soon = Deadline.after(Math.min(PING_MS_MAX, deadline.remainingMs()), clock);
  await reads.confirm(connection.ask(soon));
}

async function* eachOrganization(connection: Connection, reads: Reads, clock: Clock): AsyncGenerator<Organization> {
  const ask = <T>(read: (deadline: Deadline) => Promise<T>) =>
    connection.run(() => read(Deadline.after(PAGE_MS_MAX, clock)));
  let last: Organization | undefined;
  do {
    const path = last ? organizationPath(last) : '';
    const page = await ask((deadline) => reads.organizationsAfter(path, ORGANIZATIONS_AT_ONCE, deadline));
    yield* page;
    last = page.at(-1);
  } while (last);
  for (const keyspace of await ask((deadline) => reads.keyspacesOfEvents(deadline))) {
    let after: OrganizationRef | undefined = { keyspace, organizationId: '' };
    while (after) {
      const from: OrganizationRef = after;
      const found = await ask((deadline) => reads.unrecordedAfter(from, ORGANIZATIONS_AT_ONCE, deadline));
      if (found.unrecorded) yield found.unrecorded;
      after = found.next;
    }
  }
}

async function checkReplicaSet(connection: Connection, deadline: Deadline): Promise<void> {
  const hello = await connection.ask(deadline)(() => connection.db.command({ hello: 1 }));
  if (hello.msg === 'isdbgrid') {
    throw new Error('this is a router of a sharded cluster, and a replica set is needed: name its members in the URI');
  }
  if (hello.setName === undefined) {
    throw new Error(
      'this server is no member of a replica set, and only those have transactions: start mongod with --replSet and call rs.initiate() once; a set of one member will do for development',
    );
  }
  if (Number(hello.maxWireVersion) < WIRE_VERSION_MIN) throw new Error('MongoDB 5.0 or newer is needed');
}

function whyNot(error: unknown, fault: Error): string {
  if (isLoginRefused(error)) {
    return 'MongoDB knows no such user with that password: see them in the URI, and authSource';
  }
  if (!(error instanceof MongoServerSelectionError)) return fault.message;
  const servers = [...(error.reason?.servers.values() ?? [])];
  if (servers.some(({ type }) => type === 'RSGhost')) {
    return 'a member of the replica set waits to be told so: call rs.initiate() once, or add it to its set';
  }
  const [said] = servers.flatMap((server) => server.error?.message ?? []);
  return `no primary of a replica set answers at the addresses in the URI: see that its members run and can elect one, and that replicaSet in the URI is its name${said === undefined ? '' : ` (${said})`}`;
}
