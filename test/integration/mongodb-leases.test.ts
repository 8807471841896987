/** Replicas that answer from memory, on one replica set: what each is told, and what a revocation waits for. */
import { randomUUID } from 'node:crypto';
import { Int32, Long, MongoClient, Timestamp } from 'mongodb';
import { afterEach, beforeEach, expect, inject, test } from 'vitest';

import { type Change, unchanged } from '../../src/keys/change.js';
import { organizationPath, type OrganizationRef } from '../../src/keys/organization.js';
import { DRIFT } from '../../src/store/mongodb/leases/members.js';
import { acme, aKey, aMutation, aPepper } from '../support/domain.js';
import { type LeasedReplica, openLeased } from '../support/leased-replica.js';
import { startFailingMongod } from '../support/mongod-process.js';
import { inOwnDatabase, openReplica, within } from '../support/mongodb-store.js';
import { put, revoke, tryUpdateOrganization, verifiable, verifiableOrganization } from '../support/store-calls.js';

/** Longer than a busy machine stands still: what a replica is told is asserted, and one without its lease forgets all. */
const LEASE_MS = 10_000;
const nothing = () => undefined;
const nobody = {
  keyChanged: nothing,
  digestMoved: nothing,
  organizationChanged: nothing,
  allChanged: nothing,
  knownOrganization: nothing,
};

let uri: string;
let client: MongoClient;

beforeEach(() => {
  uri = inOwnDatabase(inject('mongodbUri'));
  client = new MongoClient(uri);
});
afterEach(async () => {
  await client.db().dropDatabase();
  await client.close();
});

interface ReplicaRow {
  _id: string;
  number: Long | number;
  applied: Timestamp;
  lease_ms: Int32 | number;
}

const replicas = () => client.db().collection<ReplicaRow>('replicas');

async function openLeasedOnes(count: number, leaseMs = LEASE_MS) {
  const opened = await Promise.all(Array.from({ length: count }, () => openLeased(uri, leaseMs)));
  await Promise.all(opened.map((one) => one.comesTo(true)));
  return {
    opened: opened as [LeasedReplica, LeasedReplica],
    async [Symbol.asyncDispose]() {
      await Promise.all(opened.map((one) => one[Symbol.asyncDispose]()));
    },
  };
}

const SILENT_MS = 6000;

/** As a replica that joined and says nothing any more. */
function silent(leaseMs: number): ReplicaRow {
  return {
    _id: 'silent',
    number: Long.ONE,
    applied: new Timestamp({ t: 1, i: 1 }),
    lease_ms: new Int32(leaseMs),
  };
}

test('what was committed before an enforcement that is complete, every replica was told before', async () => {
  await using all = await openLeasedOnes(3);
  const [first] = all.opened;
  const keys = await put(
    first.store,
    Array.from({ length: 20 }, () => aKey()),
  );
  for (const key of keys) {
    await revoke(first.store, key);
    expect(await first.store.enforce(within(10_000))).toEqual({ complete: true });
    for (const { told } of all.opened) {
      expect(told).toContainEqual({ kind: 'key', keyId: key.keyId, standing: 'revoked', revision: key.revision + 1 });
    }
  }
});

test('enforcements that are asked for at once are all answered, each of its own commit', async () => {
  await using all = await openLeasedOnes(2);
  const [first, other] = all.opened;
  const keys = await put(
    first.store,
    Array.from({ length: 20 }, () => aKey()),
  );
  await Promise.all(
    keys.map(async (key) => {
      await revoke(first.store, key);
      expect(await first.store.enforce(within(10_000))).toEqual({ complete: true });
      expect(other.told).toContainEqual(expect.objectContaining({ keyId: key.keyId, standing: 'revoked' }));
    }),
  );
});

test('a replica is told of keys, of digests that move and of organizations, whoever changes them', async () => {
  await using all = await openLeasedOnes(1);
  const [replica] = all.opened;
  await using writer = await openReplica(uri);
  const [key] = await put(writer, [aKey()]);
  if (!key) throw new Error('nothing was stored');
  const { version: pepperVersion } = aPepper(1);
  const moved = { algorithm: 'hmac-sha256', pepperVersion, bytes: new Uint8Array(32).fill(7) } as const;
  await writer.moveDigest(key.keyId, key.digest, moved, within(5000));
  await tryUpdateOrganization(writer, { ask: { suspended: true } });
  expect(await writer.enforce(within(10_000))).toEqual({ complete: true });
  expect(replica.told).toEqual([
    { kind: 'key', keyId: key.keyId, standing: 'usable', revision: 1 },
    { kind: 'organization', suspended: false, revision: 1 },
    { kind: 'digest', keyId: key.keyId },
    { kind: 'organization', suspended: true, revision: 2 },
  ]);
});

test('the first change of an organization may be its suspension', async () => {
  await using all = await openLeasedOnes(1);
  const [replica] = all.opened;
  await tryUpdateOrganization(replica.store, { ask: { suspended: true } });
  await replica.hears({ kind: 'organization' });
  expect(replica.told).toEqual([{ kind: 'organization', suspended: true, revision: 1 }]);
});

test.each([
  ['a key', { collection: 'keys', update: { $set: { name: 'by hand' } } }],
  ['an organization', { collection: 'organizations', update: { $set: { suspended: true } } }],
])('%s that somebody changes by hand makes all that is kept doubtful', async (_, { collection, update }) => {
  await using all = await openLeasedOnes(1);
  const [replica] = all.opened;
  await put(replica.store, [aKey()]);
  await client.db().collection(collection).updateOne({}, update);
  await replica.hears({ kind: 'all' });
});

test('many keys that memory lacks are read as one by one, and as of all that was told', async () => {
  await using all = await openLeasedOnes(2);
  const [first, other] = all.opened;
  const keys = await put(
    first.store,
    Array.from({ length: 50 }, () => aKey()),
  );
  const revoked = await Promise.all(keys.map((key) => revoke(first.store, key)));
  await first.store.enforce(within(10_000));
  const unknown = { keyspace: acme.keyspace, digest: { bytes: new Uint8Array(32).fill(9) } };
  const read = await Promise.all(
    [...revoked, unknown].map((key) => other.following.read(key.keyspace, key.digest.bytes)),
  );
  expect(read.map((found) => found?.key)).toEqual([...revoked.map(verifiable), undefined]);
  const organization = await first.store.findOrganization(acme, within(5000));
  expect(read[0]?.organization).toEqual(verifiableOrganization(organization));
});

test('what several sockets ask for in one turn is read together', async () => {
  await using all = await openLeasedOnes(1);
  const [{ store, following }] = all.opened;
  const keys = await put(store, [aKey(), aKey(), aKey()]);
  await client.db().command({ profile: 2 });
  const reading = [];
  for (const { keyspace, digest } of keys) {
    reading.push(following.read(keyspace, digest.bytes));
    // Between the readings of two sockets all promises go on.
    await new Promise<void>((resolve) => process.nextTick(resolve));
  }
  expect((await Promise.all(reading)).map((found) => found?.key)).toEqual(keys.map(verifiable));
  await client.db().command({ profile: 0 });
  const reads = { op: 'query', ns: `${client.db().databaseName}.keys` };
  expect(await client.db().collection('system.profile').countDocuments(reads)).toBe(1);
});

test('an organization that is known is not read for another of its keys', async () => {
  await using all = await openLeasedOnes(1);
  const [{ store, following, known }] = all.opened;
  const [key] = await put(store, [aKey()]);
  if (!key) throw new Error('nothing was put');
  const organizationRead = async () => (await following.read(key.keyspace, key.digest.bytes))?.organization;
  const stored = await organizationRead();
  expect(stored).toEqual(verifiableOrganization(await store.findOrganization(acme, within(5000))));
  const asKnown = { ...acme, suspended: true, revision: 7 };
  known.set(organizationPath(acme), asKnown);
  expect(await organizationRead()).toEqual(asKnown);
});

test('the revision of a known organization, which may be an old one, makes nobody doubt the stream', async () => {
  await using writer = await openReplica(uri);
  const [key] = await put(writer, [aKey()]);
  if (!key) throw new Error('nothing was put');
  for (const suspended of [true, false]) await tryUpdateOrganization(writer, { ask: { suspended } });
  // The replica may be told of what was written last before it joined: of this, and of that organization no more.
  await put(writer, [aKey({ organizationId: 'umbrella' })], { ...acme, organizationId: 'umbrella' });
  await using all = await openLeasedOnes(1);
  const [replica] = all.opened;
  replica.known.set(organizationPath(acme), { ...acme, suspended: false, revision: 1 });
  await replica.following.read(key.keyspace, key.digest.bytes);
  await tryUpdateOrganization(writer, { ask: { suspended: true } });
  expect(await writer.enforce(within(10_000))).toEqual({ complete: true });
  expect(replica.told.at(-1)).toEqual({ kind: 'organization', suspended: true, revision: 4 });
  expect(replica.told).not.toContainEqual({ kind: 'all' });
  expect(replica.following.holds()).toBe(true);
});

test('whose document another has removed forgets all and joins anew', async () => {
  await using all = await openLeasedOnes(1);
  const [replica] = all.opened;
  const [before] = await replicas().find().toArray();
  await replicas().deleteMany({});
  await replica.hears({ kind: 'all' });
  await replica.comesTo(true);
  const [after] = await replicas().find().toArray();
  expect(after?._id).not.toBe(before?._id);
});

test.each([
  ['dropped', () => client.db().collection('keys').drop()],
  ['renamed', () => client.db().collection('keys').rename('elsewhere')],
])('when the keys are %s a replica forgets all and joins anew', async (_, lose) => {
  await using all = await openLeasedOnes(1);
  const [replica] = all.opened;
  await lose();
  await replica.hears({ kind: 'all' });
  await replica.comesTo(true);
});

test('a replica whose place the server does not remember any more forgets all and joins anew', async () => {
  await using mongod = await startFailingMongod();
  await using replica = await openLeased(mongod.uri, 1000);
  await replica.comesTo(true);
  const changeStreamHistoryLost = 286;
  await mongod.fail(['getMore', 'aggregate'], 2, { errorCode: changeStreamHistoryLost });
  await replica.hears({ kind: 'all' });
  await replica.comesTo(true);
});

test('a change of which the stream did not tell is noticed at the next one of its organization', async () => {
  await using all = await openLeasedOnes(1);
  const [replica] = all.opened;
  await put(replica.store, [aKey()]);
  await replica.hears({ kind: 'organization', revision: 1 });
  await client
    .db()
    .collection('organizations')
    .updateOne({}, { $inc: { revision: Long.fromNumber(2) } });
  await replica.hears({ kind: 'all' });
  await replica.comesTo(true);
});

test('what the stream tells of in order, and what is stored meanwhile, is no reason to forget anything', async () => {
  await using all = await openLeasedOnes(2);
  const { opened } = all;
  // Some renewals long: at each the stream is compared with what is stored.
  const end = within(7000);
  for (let at = 0; !end.passed; at += 1) {
    const organization = { ...acme, organizationId: `org-${at % 3}` };
    const { store } = opened[at % 2 === 0 ? 0 : 1];
    await put(store, [aKey(organization)], organization);
    // Of a change that alters nothing but what is remembered of its request one half is all that is written.
    await store.change({ organization }, () => remembered(organization), within(5000));
  }
  for (const { told, following } of opened) {
    expect(told).not.toContainEqual({ kind: 'all' });
    expect(following.holds()).toBe(true);
  }
});

test('a replica whose stream does not catch up, while its renewals are written, joins anew', async () => {
  await using mongod = await startFailingMongod();
  await using replica = await openLeased(mongod.uri, 1000);
  await replica.comesTo(true);
  await mongod.fail(['getMore', 'aggregate'], 1000, { blockConnection: true, blockTimeMS: 5000 });
  await replica.hears({ kind: 'all' });
  await mongod.recover();
  await replica.comesTo(true);
});

test('a replica that ends well leaves nothing to wait for', async () => {
  await using all = await openLeasedOnes(2);
  const [first, other] = all.opened;
  await other.following[Symbol.asyncDispose]();
  expect(other.following.holds()).toBe(false);
  expect(await replicas().countDocuments()).toBe(1);
  expect(await first.store.enforce(within(10_000))).toEqual({ complete: true });
});

test('a replica that ends while it joins leaves nothing to wait for', async () => {
  await using store = await openReplica(uri);
  // Whatever it is at: it takes its place by one answer of the server.
  for (let ms = 0; ms < 20; ms += 1) {
    const following = store.follow(nobody);
    await new Promise((resolve) => setTimeout(resolve, ms / 4));
    await following[Symbol.asyncDispose]();
  }
  expect(await store.enforce(within(10_000))).toEqual({ complete: true });
  expect(await replicas().countDocuments()).toBe(0);
});

test('nor does one whose own document was being written', async () => {
  await using mongod = await startFailingMongod();
  await using store = await openReplica(mongod.uri);
  await mongod.fail(['update'], 1, { blockConnection: true, blockTimeMS: 2500 });
  const following = store.follow(nobody);
  await mongod.hasFailed();
  await following[Symbol.asyncDispose]();
  await using own = new MongoClient(mongod.uri);
  const written = [{ $currentOp: {} }, { $match: { 'command.update': 'replicas' } }];
  await expect.poll(() => own.db('admin').aggregate(written).toArray()).toEqual([]);
  expect(await store.enforce(within(10_000))).toEqual({ complete: true });
});

test('one that says nothing is waited for: until the deadline, or until its lease must be over', async () => {
  await using all = await openLeasedOnes(1, 1000);
  const [replica] = all.opened;
  await replicas().insertOne(silent(SILENT_MS));
  const before = Date.now();
  const beforeMs = performance.now();
  const early = await replica.store.enforce(within(300));
  if (early.complete) throw new Error('it waited for nobody');
  expect(early.byTime.getTime()).toBeGreaterThan(before);
  expect(await replica.store.enforce(within(30_000))).toEqual({ complete: true });
  expect(performance.now() - beforeMs).toBeGreaterThanOrEqual(DRIFT * SILENT_MS);
});

test('the longest lease of those that are waited for counts, whatever is set here', async () => {
  await using all = await openLeasedOnes(1, 1000);
  const [replica] = all.opened;
  await replicas().insertOne(silent(60_000));
  const before = Date.now();
  const answer = await replica.store.enforce(within(2000));
  if (answer.complete) throw new Error('it waited for nobody');
  expect(answer.byTime.getTime()).toBeGreaterThan(before + 60_000);
});

test('a dead replica is removed, and delays nobody after that', async () => {
  await using all = await openLeasedOnes(1, 1000);
  const [replica] = all.opened;
  await replicas().insertOne(silent(SILENT_MS));
  while ((await replicas().countDocuments({ _id: 'silent' })) > 0) {
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  expect(await replica.store.enforce(within(SILENT_MS))).toEqual({ complete: true });
});

test('a process that follows nothing waits for those that do', async () => {
  await using all = await openLeasedOnes(2);
  await using writer = await openReplica(uri);
  const [key] = await put(writer, [aKey()]);
  if (!key) throw new Error('nothing was stored');
  await revoke(writer, key);
  expect(await writer.enforce(within(10_000))).toEqual({ complete: true });
  for (const { told } of all.opened) expect(told).toContainEqual(expect.objectContaining({ standing: 'revoked' }));
});

/** A repeat of what was done already, under a request id of its own. */
function remembered(organization: OrganizationRef): Change<undefined> {
  const request = { method: 'RevokeKey', requestId: randomUUID(), hash: '0'.repeat(64) };
  return { ...unchanged(undefined), request: { mutation: aMutation({ organization, request }), keyIds: [] } };
}
