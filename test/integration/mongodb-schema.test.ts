/** What a start makes in the database, and that the indexes made are those that the queries use. */
import { randomBytes } from 'node:crypto';
import { Binary, Int32, MongoClient } from 'mongodb';
import { expect, inject, test } from 'vitest';

import { isRefusal } from '../../src/keys/refusal.js';
import type { Key } from '../../src/keys/key.js';
import type { AuditEvent } from '../../src/keys/event.js';
import { newEventId, newKeyId } from '../../src/keys/ids.js';
import { type EventRow, type KeyRow, toEventRow, toKeyRow } from '../../src/store/mongodb/rows.js';
import { acme, aKey, noon } from '../support/domain.js';
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
    expect.arrayContaining(['created collection keys', 'created index keys.digest', 'schema version 1']),
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
    .updateOne({ _id: 'schema' }, { $set: { version: new Int32(2) } });
  await expect(openReplica(uri)).rejects.toThrow(/newer release wrote it \(schema version 2, this one knows 1\)/);
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

  await db.command({ profile: 2 });
  const { digest, keyId } = created.key;
  const page = { types: [], at: noon, limit: 5 };
  await store.findByDigest('shop', digest.bytes, within(5000));
  await store.listKeys(acme, { ...page, states: ['ACTIVE', 'DISABLED', 'EXPIRED'] }, within(5000));
  await store.listKeys(acme, { ...page, states: ['REVOKED'], beforeSequence: 500 }, within(5000));
  await store.selectKeys(acme, { by: 'key_id', keyId }, within(5000));
  await store.selectKeys(acme, { by: 'client_id', clientId: 'client_7' }, within(5000));
  await store.selectKeys(acme, { by: 'name', name: 'wanted' }, within(5000));
  await store.selectKeys(acme, { by: 'name', name: 'gone' }, within(5000));
  await store.countExpired(acme, noon, within(5000));
  await store.listEvents(acme, { types: [], afterSequence: 0, limit: 5 }, within(5000));
  await store.listEvents(acme, { keyId, types: [], afterSequence: 0, limit: 5 }, within(5000));
  await store.outbox.pending(5);
  await store.outbox.backlog(5);
  await db.command({ profile: 0 });

  const entries = await db
    .collection<ProfileEntry>('system.profile')
    .find({ op: { $in: ['query', 'command'] }, ns: { $in: [`${db.databaseName}.keys`, `${db.databaseName}.events`] } })
    .sort({ $natural: 1 })
    .toArray();
  const ofOrganization = 'keyspace: 1, organization_id: 1';
  const byName = `IXSCAN { ${ofOrganization}, name: 1, current: 1, revoke_time: -1, sequence: -1 }`;
  const byLineage = `IXSCAN { ${ofOrganization}, lineage_id: 1, standing: 1 }`;
  const pending = 'IXSCAN { published: 1, time: 1, organization: 1, sequence: 1 }';
  expect(entries.map((entry) => [entry.command.readConcern?.level, entry.planSummary])).toEqual([
    ['linearizable', 'IXSCAN { keyspace: 1, digest: 1 }'],
    ['majority', listPlan(2)],
    ['majority', listPlan(1)],
    ['snapshot', 'IXSCAN { _id: 1 }'],
    ['snapshot', `IXSCAN { ${ofOrganization}, client_id: 1 }`],
    ['snapshot', byName],
    ['snapshot', byLineage],
    ['snapshot', byName],
    ['snapshot', byName],
    ['snapshot', byLineage],
    ['majority', `IXSCAN { ${ofOrganization}, expire_time: 1 }`],
    ['snapshot', `IXSCAN { ${ofOrganization}, sequence: 1 }`],
    ['snapshot', `IXSCAN { ${ofOrganization}, key_id: 1, sequence: 1 }`],
    ['snapshot', pending],
    ['majority', pending],
  ]);
  for (const { docsExamined, hasSortStage, planSummary } of entries) {
    expect(docsExamined, planSummary).toBeLessThanOrEqual(10);
    expect(hasSortStage, planSummary).toBeUndefined();
  }
});

interface ProfileEntry {
  command: { readConcern?: { level: string } };
  planSummary: string;
  docsExamined: number;
  hasSortStage?: true;
}

/** One scan for each standing: they are merged in the order of the list. */
function listPlan(scans: number): string {
  const scan = 'IXSCAN { keyspace: 1, organization_id: 1, standing: 1, sequence: -1 }';
  return Array.from({ length: scans }, () => scan).join(', ');
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

function manyEvents(): AuditEvent[] {
  return Array.from({ length: 1000 }, (_, at) => ({
    ...(at % 2 === 0 ? acme : { keyspace: 'shop', organizationId: 'other' }),
    eventId: newEventId(),
    type: 'key.imported',
    keyId: newKeyId(),
    time: noon,
    sequence: at + 2,
    hash: '',
    cloudEvent: '',
  }));
}
