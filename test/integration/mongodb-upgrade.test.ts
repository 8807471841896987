/** A database that schema version 1 wrote, as that release left it, and what a start of this one makes of it. */
import { readFile } from 'node:fs/promises';
import { BSON, type Document, type IndexDescription, MongoClient } from 'mongodb';
import { expect, inject, test } from 'vitest';

import type { CloudEvent } from '../../src/keys/chain.js';
import { isRefusal } from '../../src/keys/refusal.js';
import { organizationPath } from '../../src/keys/organization.js';
import { TRACEPARENT } from '../support/audit.js';
import { acme, aMutation } from '../support/domain.js';
import { expectWhole } from '../support/expect-whole.js';
import { inOwnDatabase, openReplica, within } from '../support/mongodb-store.js';
import { create, keysOf, organizationsOf, revoke, toDraft, tryCreate } from '../support/store-calls.js';

interface Dump {
  readonly options: { readonly validator: Document };
  readonly indexes: IndexDescription[];
  readonly documents: Document[];
}

/** Keys `first`, `second` (revoked) and `rotated` (two); of five events two are published; `first` by request `r1`. */
const VERSION_1 = new URL('mongodb-version-1.json', import.meta.url);

async function restore(client: MongoClient): Promise<void> {
  const dump = BSON.EJSON.parse(await readFile(VERSION_1, 'utf8'), { relaxed: false }) as Record<string, Dump>;
  for (const [name, { options, indexes, documents }] of Object.entries(dump)) {
    const collection = await client.db().createCollection(name, options);
    if (indexes.length > 0) await collection.createIndexes(indexes);
    // Requests are forgotten by their age.
    const aged = name === 'requests' ? documents.map((one) => ({ ...one, create_time: new Date() })) : documents;
    if (aged.length > 0) await collection.insertMany(aged);
  }
}

test('what version 1 stored is there after an upgrade, by two replicas at once, and can be worked with', async () => {
  const uri = inOwnDatabase(inject('mongodbUri'));
  await using client = new MongoClient(uri);
  await restore(client);
  const reported: string[] = [];
  const report = (line: string) => reported.push(line);
  const [store, other] = await Promise.all([openReplica(uri, report), openReplica(uri, report)]);
  try {
    expect(reported).toEqual(
      expect.arrayContaining([
        'created collection last_uses',
        'created collection budgets',
        'created collection positions',
        'created collection peppers',
        'set the validator of organizations',
        'set the validator of events',
        'created index events.previous_key',
        'created index organizations.plan',
        'created index keys.standing',
        'schema version 3',
      ]),
    );

    const keys = await keysOf(store);
    expect(keys.map(({ name }) => name)).toEqual(['rotated', 'rotated', 'second', 'first']);
    const [newer, older, second, first] = keys;
    if (!newer || !older || !second || !first) throw new Error('keys are missing');
    expect(second.standing.kind).toBe('revoked');
    const before = { keyCount: 2, sequence: 5, revision: 4, settingsRevision: 0, plan: 'free' };
    expect(await organizationsOf(store)).toMatchObject([before]);
    expect(await store.findByDigest('shop', first.digest.bytes, within(5000))).toMatchObject({
      key: { keyId: first.keyId },
      organization: { revision: 4, plan: 'free' },
    });
    expect((await store.outbox.pending(10)).map(({ sequence }) => sequence)).toEqual([3, 4, 5]);
    expect(await store.outbox.readLeadership()).toEqual({ holder: 'replica', count: 7 });
    expect(await store.keyspaceFacts(within(5000))).toMatchObject([
      { name: 'shop', hasUnrevokedKeys: true, plansInUse: ['free'] },
    ]);
    expect(await store.countDigests(within(5000))).toEqual(new Map([[0, 3]]));
    await expectWhole(store);

    const request = { method: 'CreateKey', requestId: 'r1', hash: '0'.repeat(64) };
    const repeated = await tryCreate(other, { ask: { name: 'first', mutation: aMutation({ request }) } });
    if (isRefusal(repeated)) throw new Error(repeated.refused);
    expect(repeated).toMatchObject({ key: { keyId: first.keyId }, replayed: true });

    await create(other, { ask: { mutation: aMutation({ traceparent: TRACEPARENT }) } });
    await revoke(store, first);
    await store.change(
      { organization: acme, keyIds: [older.keyId] },
      () => ({
        answer: 'suspended',
        settings: { plan: 'free', suspended: true },
        widens: false,
        put: [],
        events: [toDraft(newer, { type: 'key.updated', previous: { key: older, before: {}, after: {} } })],
      }),
      within(5000),
    );
    expect(await organizationsOf(other)).toMatchObject([{ settingsRevision: 1, suspended: true, sequence: 8 }]);
    const query = { keyId: older.keyId, types: [], afterSequence: 0, limit: 10 };
    const ofOlder = (await other.listEvents(acme, query, within(5000))).events;
    expect(ofOlder.map(({ sequence }) => sequence)).toEqual([older.sequence, 8]);
    await store.recordUses(new Map([[newer.keyId, newer.createTime]]), within(5000));
    expect((await keysOf(other)).find(({ keyId }) => keyId === newer.keyId)?.lastUseTime).toEqual(newer.createTime);
    // Those that version 1 made tell of no trace, and the chain goes on from them.
    const traces = (await expectWhole(store)).map(
      ({ cloudEvent }) => (JSON.parse(cloudEvent) as CloudEvent).traceparent,
    );
    expect(traces).toEqual([...Array<undefined>(5), TRACEPARENT, undefined, undefined]);
  } finally {
    await store[Symbol.asyncDispose]();
    await other[Symbol.asyncDispose]();
  }

  reported.length = 0;
  await (await openReplica(uri, report))[Symbol.asyncDispose]();
  expect(reported).toEqual([]);
  await client.db().dropDatabase();
});

test('a document that version 1 wrote is not touched before a change of it', async () => {
  const uri = inOwnDatabase(inject('mongodbUri'));
  await using client = new MongoClient(uri);
  await restore(client);
  const stored = () =>
    client
      .db()
      .collection<{ _id: string }>('organizations')
      .findOne({ _id: organizationPath(acme) });
  const before = await stored();
  await using store = await openReplica(uri);
  expect(await stored()).toEqual(before);
  expect(before).not.toHaveProperty('settings_revision');
  await create(store);
  expect(await stored()).toMatchObject({ settings_revision: 0 });
});
