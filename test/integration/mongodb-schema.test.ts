/** What a start makes in the database, and that the indexes made are those that the queries use. */
import { randomBytes } from 'node:crypto';
import { Binary, type Db, Int32, Long, MongoClient } from 'mongodb';
import { expect, inject, test } from 'vitest';

import { type CommittedEvent, unchanged } from '../../src/keys/change.js';
import { isRefusal } from '../../src/keys/refusal.js';
import type { Key } from '../../src/keys/key.js';
import { newEventId, newKeyId } from '../../src/keys/ids.js';
import { keyspaceFactsOf } from '../../src/keys/keyspace-facts.js';
import { newOrganization, type Organization } from '../../src/keys/organization.js';
import {
  type BudgetRow,
  type EventRow,
  type KeyRow,
  type LastUseRow,
  type OrganizationRow,
  type PositionRow,
  toEventRow,
  toKeyRow,
  toOrganizationRow,
  toPositionRowId,
} from '../../src/store/mongodb/rows.js';
import { acme, aKey, aKeyspace, noon } from '../support/domain.js';
import { create, inOwnDatabase, openReplica, within } from '../support/mongodb-store.js';

const ownDatabase = () => inOwnDatabase(inject('mongodbUri'));

test('replicas that start at once make one schema, and a later start has nothing to do', async () => {
  const uri = ownDatabase();
  const stores = await Promise.all([openReplica(uri), openReplica(uri), openReplica(uri)]);
  for (const store of stores) {
    expect(await create(store)).toMatchObject({ replayed: false });
    await store[Symbol.asyncDispose]();
  }
  const reported: string[] = [];
  await using later = await openReplica(uri, (line) => reported.push(line));
  expect(reported).toEqual([]);
  expect(await create(later)).toMatchObject({ replayed: false });
});

test('a start tells what it made, and makes again what is missing', async () => {
  const uri = ownDatabase();
  await using client = new MongoClient(uri);
  const start = async () => {
    const reported: string[] = [];
    await (await openReplica(uri, (line) => reported.push(line)))[Symbol.asyncDispose]();
    return reported;
  };
  expect(await start()).toEqual(
    expect.arrayContaining(['created collection keys', 'created index keys.digest', 'schema version 3']),
  );
  await client.db().collection('keys').dropIndex('digest');
  await client.db().command({ collMod: 'events', validator: {} });
  expect((await start()).sort()).toEqual(['created index keys.digest', 'set the validator of events']);
});

test('a database that a newer release has written to is refused', async () => {
  const uri = ownDatabase();
  await (await openReplica(uri))[Symbol.asyncDispose]();
  await using client = new MongoClient(uri);
  await client
    .db()
    .collection<{ _id: string }>('meta')
    .updateOne({ _id: 'schema' }, { $set: { version: new Int32(4) } });
  await expect(openReplica(uri)).rejects.toThrow(/newer release wrote it \(schema version 4, this one knows 3\)/);
});

test('the database refuses records that no release writes', async () => {
  const uri = ownDatabase();
  await (await openReplica(uri))[Symbol.asyncDispose]();
  await using client = new MongoClient(uri, { ignoreUndefined: true });
  const keys = client.db().collection<{ _id: string }>('keys');
  const whole = toKeyRow(aKey());
  const without = (field: keyof KeyRow) => ({ ...whole, [field]: undefined });
  const faulty = [
    { ...whole, digest: new Binary(new Uint8Array(31)) },
    { ...whole, revision: 1 },
    { ...whole, expire_time: '2026-01-01' },
    without('lineage_id'),
    without('digest'),
  ];
  for (const record of faulty) await expect(keys.insertOne(record)).rejects.toThrow('Document failed validation');
  await keys.insertOne({ ...whole });
  await expect(keys.insertOne({ ...whole, _id: newKeyId() })).rejects.toThrow('duplicate key');
});

test('each query is answered by its index alone, and by the read concern that its promise needs', async () => {
  const uri = ownDatabase();
  await using store = await openReplica(uri);
  await using client = new MongoClient(uri);
  const db = client.db();
  const created = await create(store, { name: 'wanted' });
  if (isRefusal(created)) throw new Error(created.refused);
  await db.collection<KeyRow>('keys').insertMany(manyKeys().map(toKeyRow));
  await db.collection<EventRow>('events').insertMany(manyEvents().map(toEventRow));
  await db.collection<OrganizationRow>('organizations').insertMany(manyOrganizations().map(toOrganizationRow));
  await fillBookkeeping(db);

  const { digest, keyId } = created.key;
  const page = { types: [], at: noon, limit: 5 };
  const states = ['ACTIVE', 'DISABLED', 'EXPIRED'] as const;
  const load = { organization: acme, selector: { by: 'key_id', keyId } as const, withLineage: true };
  const budget = { lineageId: 'key_500', windowMs: 60_000, limit: 10 };

  const ofOrganization = 'keyspace: 1, organization_id: 1';
  const byId = 'IXSCAN { _id: 1 }';
  const byName = `IXSCAN { ${ofOrganization}, name: 1, current: 1, revoke_time: -1, sequence: -1 }`;
  const byDigest = 'IXSCAN { keyspace: 1, digest: 1 }';
  const byStanding = 'IXSCAN { standing: 1, keyspace: 1, pepper_version: 1 }';
  const pending = 'IXSCAN { published: 1, time: 1, organization: 1, sequence: 1 }';
  const unrevoked = 'IXSCAN { keyspace: 1, organization_id: 1, standing: 1, sequence: -1 }';
  const calls: Record<string, [call: () => Promise<unknown>, ...queries: string[]]> = {
    findByDigest: [
      () => store.findByDigest('shop', digest.bytes, within(5000)),
      `keys linearizable ${byDigest}`,
      `organizations majority, late enough ${byId}`,
    ],
    findOrganization: [() => store.findOrganization(acme, within(5000)), 'organizations majority IDHACK'],
    'listKeys, unrevoked': [
      () => store.listKeys(acme, { ...page, states }, within(5000)),
      `keys snapshot ${unrevoked}, ${unrevoked}`,
      `last_uses snapshot ${byId}`,
    ],
    'listKeys, revoked': [
      () => store.listKeys(acme, { ...page, states: ['REVOKED'], beforeSequence: 500 }, within(5000)),
      `keys snapshot ${unrevoked}`,
      `last_uses snapshot ${byId}`,
    ],
    'selectKeys by id': [
      () => store.selectKeys(acme, { by: 'key_id', keyId }, within(5000)),
      `keys snapshot ${byId}`,
      `last_uses snapshot ${byId}`,
    ],
    'selectKeys by client id': [
      () => store.selectKeys(acme, { by: 'client_id', clientId: 'client_7' }, within(5000)),
      `keys snapshot IXSCAN { ${ofOrganization}, client_id: 1 }`,
      `last_uses snapshot ${byId}`,
    ],
    'selectKeys by name': [
      () => store.selectKeys(acme, { by: 'name', name: 'wanted' }, within(5000)),
      `keys snapshot ${byName}`,
      `last_uses snapshot ${byId}`,
    ],
    'selectKeys by the name of a key that was revoked': [
      () => store.selectKeys(acme, { by: 'name', name: 'gone' }, within(5000)),
      `keys snapshot ${byName}`,
      `keys snapshot ${byName}`,
      `last_uses snapshot ${byId}`,
    ],
    // A transaction states its read concern once.
    'change with a lineage': [
      () => store.change(load, () => unchanged('seen'), within(5000)),
      'organizations snapshot IDHACK',
      `keys ${byId}`,
      `keys IXSCAN { ${ofOrganization}, lineage_id: 1, standing: 1 }`,
      `last_uses ${byId}`,
      'organizations linearizable IDHACK',
    ],
    'change with digests and ids': [
      () =>
        store.change(
          { organization: acme, digests: [digest.bytes, new Uint8Array(32)], keyIds: [keyId, newKeyId()] },
          () => unchanged('seen'),
          within(5000),
        ),
      'organizations snapshot IDHACK',
      `keys ${byDigest}`,
      `keys ${byId}`,
      `last_uses ${byId}`,
      'organizations linearizable IDHACK',
    ],
    countExpired: [
      () => store.countExpired(acme, noon, within(5000)),
      `keys majority IXSCAN { ${ofOrganization}, expire_time: 1 }`,
    ],
    listEvents: [
      () => store.listEvents(acme, { types: [], afterSequence: 0, limit: 5 }, within(5000)),
      `events snapshot IXSCAN { ${ofOrganization}, sequence: 1 }`,
      'organizations snapshot IDHACK',
    ],
    'listEvents of a key': [
      () => store.listEvents(acme, { keyId, types: [], afterSequence: 0, limit: 5 }, within(5000)),
      `events snapshot IXSCAN { ${ofOrganization}, key_id: 1, sequence: 1 }`,
      `events snapshot IXSCAN { ${ofOrganization}, previous_key_id: 1, sequence: 1 }`,
      'organizations snapshot IDHACK',
    ],
    recordUses: [
      () => store.recordUses(new Map([[keyId, noon]]), within(5000)),
      `last_uses ${byId}`,
      `last_uses ${byId}`,
    ],
    moveDigest: [() => store.moveDigest(keyId, digest, { ...digest, pepperVersion: 1 }, within(5000)), `keys ${byId}`],
    countDigests: [() => store.countDigests(within(5000)), `keys majority ${byStanding}`],
    hasDigests: [() => store.hasDigests(1, within(5000)), `keys majority ${byStanding}`],
    takeBudget: [() => store.takeBudget({ ...budget, want: 1 }, within(5000)), 'budgets IDHACK'],
    readBudget: [() => store.readBudget(budget, within(5000)), 'budgets majority IDHACK'],
    keyspaceFacts: [
      () => store.keyspaceFacts(within(5000)),
      'keyspaces majority IXSCAN { _id: 1 }',
      `keys majority ${byStanding}`,
      'organizations majority DISTINCT_SCAN { keyspace: 1, plan: 1 }',
    ],
    markPublished: [
      async () => store.outbox.markPublished(await store.outbox.pending(1), { sink: 'kafka/t', lane: 7, end: 9 }),
      `events snapshot ${pending}`,
      `events ${byId}`,
      'positions IDHACK',
    ],
    positions: [() => store.outbox.positions('kafka/t'), `positions majority ${byId}`],
    pending: [() => store.outbox.pending(5), `events snapshot ${pending}`],
    backlog: [() => store.outbox.backlog(5), `events majority ${pending}`],
  };
  await store.rememberKeyspaces([keyspaceFactsOf(aKeyspace())], within(5000));
  for (const [name, [call, ...expected]] of Object.entries(calls)) {
    const entries = await profiled(db, call);
    expect(entries.map(summaryOf), name).toEqual(expected);
    for (const { docsExamined = 0, keysExamined = 0, hasSortStage, planSummary } of entries) {
      expect(docsExamined, `${name}: ${planSummary}`).toBeLessThanOrEqual(10);
      if (!COUNTS.has(name)) expect(keysExamined, `${name}: ${planSummary}`).toBeLessThanOrEqual(100);
      expect(hasSortStage, `${name}: ${planSummary}`).toBeUndefined();
    }
  }
});

/** They read as much of an index as there is to count. */
const COUNTS = new Set(['countDigests']);

interface ProfileEntry {
  ns: string;
  command: { readConcern?: { level: string; afterClusterTime?: unknown } };
  planSummary: string;
  docsExamined?: number;
  keysExamined?: number;
  hasSortStage?: true;
}

/** What the server itself says of the queries, and of the writes that have to find something. */
async function profiled(db: Db, call: () => Promise<unknown>): Promise<ProfileEntry[]> {
  await db.command({ profile: 2 });
  await call();
  await db.command({ profile: 0 });
  const profile = db.collection<ProfileEntry>('system.profile');
  const entries = await profile
    .find({ planSummary: { $exists: true }, ns: { $ne: `${db.databaseName}.system.profile` } })
    .sort({ $natural: 1 })
    .toArray();
  await profile.drop();
  return entries;
}

function summaryOf({ ns, command, planSummary }: ProfileEntry): string {
  const collection = ns.slice(ns.indexOf('.') + 1);
  const { level, afterClusterTime } = command.readConcern ?? {};
  const concern = afterClusterTime === undefined ? level : `${level}, late enough`;
  return [collection, concern, planSummary].filter((part) => part !== undefined).join(' ');
}

/** Enough that a scan of them would show, of every standing, in two organizations. */
function manyKeys(): Key[] {
  const by = { type: 'USER', id: 'ada' } as const;
  const revoked = { kind: 'revoked', time: noon, by, reason: 'OTHER', detail: '' } as const;
  return Array.from({ length: 1000 }, (_, at) =>
    aKey({
      ...(at % 2 === 0 ? acme : { keyspace: 'shop', organizationId: 'other' }),
      digest: { algorithm: 'sha256', pepperVersion: 0, bytes: randomBytes(32) },
      name: at < 20 ? 'gone' : `key ${at}`,
      clientId: `client_${at % 100 === 0 ? 7 : at + 100}`,
      standing: at % 4 < 2 && at >= 20 ? { kind: 'usable' } : revoked,
      ...(at % 400 === 100 && { expireTime: noon }),
      sequence: at + 2,
    }),
  );
}

function manyEvents(): CommittedEvent[] {
  return Array.from({ length: 1000 }, (_, at) => ({
    ...(at % 2 === 0 ? acme : { keyspace: 'shop', organizationId: 'other' }),
    eventId: newEventId(),
    type: 'key.imported',
    keyId: newKeyId(),
    time: noon,
    sequence: at + 2,
    ...(at % 10 === 0 && { previousKeyId: newKeyId() }),
    hash: '',
    cloudEvent: '',
    published: false,
  }));
}

function manyOrganizations(): Organization[] {
  return Array.from({ length: 1000 }, (_, at) => ({
    ...newOrganization({ keyspace: 'shop', organizationId: `org-${at}` }),
    ...(at % 2 === 0 && { plan: at % 4 === 0 ? 'gold' : 'silver' }),
  }));
}

async function fillBookkeeping(db: Db): Promise<void> {
  const many = Array.from({ length: 200 }, (_, at) => at);
  const time = { opened_at: noon, last_taken_at: noon };
  const budgets = many.map((at) => ({ _id: `key_${at}`, ...time, taken: Long.ONE, last_taken: Long.ONE }));
  await db.collection<BudgetRow>('budgets').insertMany(budgets);
  await db.collection<LastUseRow>('last_uses').insertMany(many.map((at) => ({ _id: `key_${at}`, time: noon })));
  const positions = many.map((at) => ({ _id: toPositionRowId({ sink: 'file', lane: at }), end: Long.ONE }));
  await db.collection<PositionRow>('positions').insertMany(positions);
}
