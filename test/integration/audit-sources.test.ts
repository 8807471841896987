/** What somebody does to the events is found wherever they lie: in the file, in the topic, in both stores. */
import { randomUUID } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import Database from 'libsql';
import { Long, MongoClient } from 'mongodb';
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest';

import { openKafkaSink, partitionOf } from '../../src/audit/kafka-sink.js';
import { readAuditFile } from '../../src/audit/read-file.js';
import { readHeads, readStore } from '../../src/audit/read-store.js';
import { readTopic } from '../../src/audit/read-topic.js';
import { type Verdict, verifyChain } from '../../src/audit/verify-chain.js';
import { systemClock } from '../../src/keys/clock.js';
import { type AuditEvent, EVENT_TYPES } from '../../src/keys/event.js';
import {
  newOrganization,
  type Organization,
  organizationPath,
  type OrganizationRef,
} from '../../src/keys/organization.js';
import { toEventRow as toMongoRow, toOrganizationRow as toMongoOrganizationRow } from '../../src/store/mongodb/rows.js';
import type { Store } from '../../src/store/port.js';
import {
  toEventRow as toSqliteRow,
  toOrganizationRow as toSqliteOrganizationRow,
} from '../../src/store/sqlite/rows.js';
import { edit, rewrite, silentLog } from '../support/audit.js';
import { acme, aKeyspace, aMutation, noon, SOURCE } from '../support/domain.js';
import { type GuardedFolder, makeGuardedFolder } from '../support/guard.js';
import { inOwnDatabase } from '../support/mongodb-store.js';
import { openStoreAt, type StorePlace } from '../support/open-store.js';
import {
  create,
  eventsOf,
  granted,
  organizationsOf,
  revoke,
  rotate,
  tryImport,
  tryUpdateOrganization,
  update,
} from '../support/store-calls.js';

/** An event in a place: in a store the row of a sequence, elsewhere the next line or message. */
interface Laid {
  readonly slot: number;
  readonly event: AuditEvent;
}

const PATH = 'shop/acme';

const damages: [string, (events: readonly Laid[]) => Laid[], { kind: string; sequence?: number }][] = [
  ['altered', replacing(3, (event) => edit(event, '"ada"', '"eve"')), { kind: 'altered', sequence: 3 }],
  [
    'altered with a hash that fits',
    replacing(3, (event) => rewrite(event, ({ data }) => (data.actor.id = 'eve'))),
    { kind: 'fork', sequence: 4 },
  ],
  ['dropped from the middle', dropping(3), { kind: 'gap', sequence: 4 }],
  ['dropped from the start', dropping(1, 2), { kind: 'gap', sequence: 3 }],
  ['dropped from the end', dropping(5, 6), { kind: 'tail', sequence: 5 }],
  ['dropped altogether', () => [], { kind: 'tail', sequence: 1 }],
  ['swapped', swapping(2, 3), { kind: 'order' }],
  [
    'forked',
    adding(3, (event) =>
      rewrite(event, (envelope) => {
        envelope.id = `${envelope.id.slice(0, -1)}${envelope.id.endsWith('0') ? '1' : '0'}`;
        envelope.data.actor.id = 'eve';
      }),
    ),
    { kind: 'fork', sequence: 3 },
  ],
];

let folder: GuardedFolder;
beforeAll(async () => {
  folder = await makeGuardedFolder(join(tmpdir(), 'keyreeve-audit-sources-'));
});
afterAll(() => folder[Symbol.asyncDispose]());

describe.each(['file', 'topic', 'sqlite', 'mongodb'] as const)('in the %s', (where) => {
  test('whole events are found whole', async () => {
    const verdict = await damageAndVerify(where, (events) => [...events]);
    expect(verdict).toMatchObject({ organizations: 2, events: 8, repeats: 0, faultCount: 0 });
  });

  test.each(damages)('an event %s is found and named', async (_, damage, fault) => {
    const { faults } = await damageAndVerify(where, damage);
    expect(faults[0]).toMatchObject({ organization: PATH, ...fault });
  });
});

describe.each(['sqlite', 'mongodb'] as const)('in the %s', (where) => {
  test.each<[string, (event: AuditEvent) => AuditEvent]>([
    ['type', (event) => ({ ...event, type: 'key.updated' })],
    ['time', (event) => ({ ...event, time: new Date(event.time.getTime() + 1) })],
    ['previous key', (event) => ({ ...event, previousKeyId: event.keyId })],
  ])('a row that says another %s than its event is found and named', async (_, change) => {
    const { faults } = await damageAndVerify(where, replacing(3, change));
    expect(faults).toMatchObject([{ kind: 'misplaced', organization: PATH, sequence: 3 }]);
  });

  test('events of every type are found whole, those about the organization itself too', async () => {
    await withStore(placeOf(where), async (store) => {
      const keyspace = aKeyspace();
      const key = await create(store);
      await rotate(store, key);
      await update(store, key, { disabled: true });
      await revoke(store, key);
      granted(await tryImport(store));
      granted(await tryUpdateOrganization(store, { keyspace, ask: { suspended: true } }));
      const headsAfter = () => readHeads(store);
      const options = { source: SOURCE, heads: await readHeads(store), headsAfter, repeats: 'fault' as const };
      expect(await verifyChain(readStore(store, systemClock), options)).toMatchObject({ events: 6, faults: [] });
      expect(new Set((await eventsOf(store)).map(({ type }) => type))).toEqual(new Set(EVENT_TYPES));
    });
  });

  test('an organization whose record was removed is found, also from an anchor at its end', async () => {
    const place = placeOf(where);
    const chain = (await makeEvents(place)).find(([first]) => first && organizationPath(first) === PATH);
    await past(place, (rows) => rows.removeOrganization(acme));
    await withStore(place, async (store) => {
      const [heads, headsAfter] = [await readHeads(store), () => readHeads(store)];
      const options = { source: SOURCE, heads, headsAfter, repeats: 'fault' as const };
      const ahead = { kind: 'ahead', organization: PATH, sequence: 1 };
      for (const anchors of [new Map(), new Map([[PATH, chain?.at(-1) ?? expect.fail('no event')]])]) {
        const verdict = await verifyChain(readStore(store, systemClock), { ...options, anchors });
        expect(verdict).toMatchObject({ events: 8, beforeAnchors: anchors.size * 6, faultCount: 1, faults: [ahead] });
      }
    });
  });

  test('of many organizations, each that has a record, events or both is told of once', async () => {
    const place = placeOf(where);
    // A hyphen comes before the slash of a path, and a zero right behind it.
    const inMany = manyOf('shop', 1203);
    const [inOther, inLast, inUnrecorded] = [manyOf('shop-2', 3), manyOf('shop0', 3), manyOf('spare', 3)] as const;
    // At both ends, where a read of 500 records ends, and several in a row.
    const unrecorded = [0, 1, 400, 499, 500, 501, 502, 503, 504, 1202].map((at) => inMany[at] ?? acme);
    unrecorded.push(...inOther.slice(1, 2), ...inUnrecorded);
    const all = [...inMany, ...inOther, ...inLast, ...inUnrecorded];
    const recorded = all.filter((organization) => !unrecorded.includes(organization));
    await withStore(place, () => Promise.resolve());
    await past(place, async (rows) => {
      await rows.addOrganizations(recorded.map((organization) => ({ ...newOrganization(organization), revision: 1 })));
      await rows.addEvents(all.filter((organization) => !inLast.includes(organization)).flatMap(twoEvents));
    });
    await withStore(place, async (store) => {
      const told = await organizationsOf(store);
      expect(told.map(organizationPath).sort()).toEqual(all.map(organizationPath).sort());
      const untold = told.filter(({ revision }) => revision === 0);
      expect(untold).toHaveLength(unrecorded.length);
      expect(untold).toEqual(expect.arrayContaining(unrecorded.map(newOrganization)));
    });
  });
});

test.each(['file', 'topic'] as const)('an exact repeat in the %s is counted', async (where) => {
  const repeating = (events: readonly Laid[]) => [...events.slice(0, 4), ...events.slice(2)];
  expect(await damageAndVerify(where, repeating)).toMatchObject({ repeats: 2, faultCount: 0 });
});

test('an exact repeat in a store is a fault', async () => {
  const { faults } = await damageAndVerify(
    'sqlite',
    adding(3, (event) => event),
  );
  expect(faults).toMatchObject([{ kind: 'repeat', organization: PATH, sequence: 3 }]);
});

test('in a store, a second event of a sequence is found wherever a page ends', async () => {
  const chain = Array.from({ length: 1200 }, (_, at) => ({ sequence: at + 1 }) as AuditEvent);
  const organizations = async function* () {
    yield await Promise.resolve(acme as never);
  };
  for (const doubled of [1, 499, 500, 501, 999, 1000, 1001, 1200]) {
    const rows = chain.flatMap((event) => (event.sequence === doubled ? [event, event] : [event]));
    const listEvents: Store['listEvents'] = (_organization, { afterSequence, limit }) => {
      const events = rows.filter(({ sequence }) => sequence > afterSequence).slice(0, limit);
      return Promise.resolve({ events, head: { sequence: 0, hash: '' } });
    };
    const read = [];
    for await (const { claims } of readStore({ organizations, listEvents }, systemClock)) read.push(claims?.sequence);
    expect(read).toEqual(rows.map(({ sequence }) => sequence));
  }
});

/** Makes two organizations' events in a real store, lays the first one's out as damaged, and verifies what lies there. */
async function damageAndVerify(
  where: 'file' | 'topic' | 'sqlite' | 'mongodb',
  damage: (events: readonly Laid[]) => Laid[],
): Promise<Verdict> {
  const place = placeOf(where);
  const chains = await makeEvents(place);
  const heads = await withStore(place, readHeads);
  const laid = chains.map((chain) => {
    const whole = chain.map((event) => ({ slot: event.sequence, event }));
    return organizationPath(chain[0] ?? acme) === PATH ? damage(whole) : whole;
  });
  const options = { source: SOURCE, heads, repeats: 'counted' as const };
  const events = laid.flat().map(({ event }) => event);
  switch (where) {
    case 'file': {
      const path = join(folder.path, `${randomUUID()}.jsonl`);
      await writeFile(path, events.map(({ cloudEvent }) => `${cloudEvent}\n`).join(''));
      return verifyChain(readAuditFile(path), options);
    }
    case 'topic': {
      const settings = { brokers: inject('kafkaBrokers'), topic: `audit-${randomUUID()}`, allowSingleBroker: true };
      await using sink = await openKafkaSink(settings, silentLog);
      for (const chain of laid) {
        const [first] = chain;
        if (first)
          await sink.publish(
            partitionOf(first.event),
            chain.map(({ event }) => event),
            10_000,
          );
      }
      return await verifyChain(readTopic(settings, silentLog), options);
    }
    case 'sqlite':
    case 'mongodb':
      if (place.engine === 'sqlite') layInSqlite(place.dataDir, laid.flat());
      return await withStore(place, async (store) => {
        // MongoDB's indexes come back when a store is opened, and cannot where there are two events of a sequence.
        if (place.engine === 'mongodb') await layInMongodb(place.uri, laid.flat());
        const headsAfter = () => readHeads(store);
        return verifyChain(readStore(store, systemClock), { ...options, repeats: 'fault', headsAfter });
      });
  }
}

function placeOf(where: string): StorePlace {
  if (where === 'mongodb') return { engine: 'mongodb', uri: inOwnDatabase(inject('mongodbUri')) };
  return { engine: 'sqlite', dataDir: join(folder.path, randomUUID()) };
}

async function withStore<T>(place: StorePlace, use: (store: Store) => Promise<T>): Promise<T> {
  await using store = await openStoreAt(place);
  return await use(store);
}

function makeEvents(place: StorePlace): Promise<AuditEvent[][]> {
  return withStore(place, async (store) => {
    await makeChanges(store, acme, 3);
    await makeChanges(store, { ...acme, organizationId: 'other' }, 1);
    return Promise.all((await organizationsOf(store)).map((organization) => eventsOf(store, organization)));
  });
}

async function makeChanges(store: Store, organization: OrganizationRef, keys: number): Promise<void> {
  for (let made = 0; made < keys; made += 1) {
    await revoke(store, await create(store, { ask: { mutation: aMutation({ organization }) } }));
  }
}

/** By id, in the order in which both engines have them. */
function manyOf(keyspace: string, count: number): OrganizationRef[] {
  return Array.from({ length: count }, (_, n) => ({ keyspace, organizationId: `org-${String(n).padStart(4, '0')}` }));
}

function twoEvents(organization: OrganizationRef): AuditEvent[] {
  const fields = { type: 'key.created', keyId: 'key', time: noon, hash: '', cloudEvent: '{}' } as const;
  return [1, 2].map((sequence) => ({ ...organization, ...fields, sequence, eventId: randomUUID() }));
}

/** A store's rows, for somebody who writes to them past the store. */
interface Rows {
  removeOrganization(organization: OrganizationRef): unknown;
  addOrganizations(organizations: readonly Organization[]): unknown;
  addEvents(events: readonly AuditEvent[]): unknown;
}

async function past(place: StorePlace, use: (rows: Rows) => unknown): Promise<void> {
  if (place.engine === 'mongodb') {
    await using client = new MongoClient(place.uri);
    const organizations = client.db().collection<{ _id: string }>('organizations');
    await use({
      removeOrganization: (organization) => organizations.deleteOne({ _id: organizationPath(organization) }),
      addOrganizations: (added) => organizations.insertMany(added.map(toMongoOrganizationRow)),
      addEvents: (added) => client.db().collection<{ _id: string }>('events').insertMany(added.map(toPublishedRow)),
    });
    return;
  }
  const database = new Database(join(place.dataDir, 'keyreeve.db'));
  try {
    await use({
      removeOrganization: ({ keyspace, organizationId }) =>
        database
          .prepare('DELETE FROM organizations WHERE keyspace = ? AND organization_id = ?')
          .run([keyspace, organizationId]),
      addOrganizations: (added) => insert(database, 'organizations', added.map(toSqliteOrganizationRow)),
      addEvents: (added) =>
        insert(
          database,
          'events',
          added.map((event) => ({ ...toSqliteRow(event), published: 1 })),
        ),
    });
  } finally {
    database.close();
  }
}

function insert(database: Database.Database, table: string, rows: readonly object[]): void {
  database.exec('BEGIN');
  for (const row of rows) {
    const names = Object.keys(row);
    const values = names.map((name) => `:${name}`);
    database.prepare(`INSERT INTO ${table} (${names.join()}) VALUES (${values.join()})`).run(row);
  }
  database.exec('COMMIT');
}

const toPublishedRow = (event: AuditEvent) => toMongoRow({ ...event, published: true });

/** Writes the rows past the store, as somebody does who has its file; MongoDB's likewise. */
function layInSqlite(dataDir: string, laid: readonly Laid[]): void {
  const database = new Database(join(dataDir, 'keyreeve.db'));
  try {
    // A table without the key that forbids two events of one sequence.
    database.exec('CREATE TABLE laid AS SELECT * FROM events WHERE false');
    database.exec('DROP TABLE events; ALTER TABLE laid RENAME TO events');
    const rows = laid.map(({ slot, event }) => ({ ...toSqliteRow(event), sequence: slot, published: 1 }));
    insert(database, 'events', rows);
  } finally {
    database.close();
  }
}

async function layInMongodb(uri: string, laid: readonly Laid[]): Promise<void> {
  const client = new MongoClient(uri);
  try {
    const events = client.db().collection<{ _id: string }>('events');
    await events.deleteMany({});
    await events.dropIndexes();
    const rows = laid.map(({ slot, event }) => {
      const row = toPublishedRow(event);
      return { ...row, _id: (JSON.parse(event.cloudEvent) as { id: string }).id, sequence: Long.fromNumber(slot) };
    });
    if (rows.length > 0) await events.insertMany(rows);
  } finally {
    await client.close();
  }
}

function replacing(sequence: number, change: (event: AuditEvent) => AuditEvent) {
  return (events: readonly Laid[]) =>
    events.map(({ slot, event }) => ({ slot, event: slot === sequence ? change(event) : event }));
}

function dropping(...sequences: readonly number[]) {
  return (events: readonly Laid[]) => events.filter(({ slot }) => !sequences.includes(slot));
}

/** The two events lie in each other's places. */
function swapping(one: number, two: number) {
  return (events: readonly Laid[]) => {
    const at = (slot: number) => (slot === one ? two : slot === two ? one : slot);
    return events.map((laid) => ({ ...(events[at(laid.slot) - 1] ?? laid), slot: laid.slot }));
  };
}

/** A further event behind this one, in the place of the same sequence. */
function adding(sequence: number, change: (event: AuditEvent) => AuditEvent) {
  return (events: readonly Laid[]) =>
    events.flatMap((laid) => (laid.slot === sequence ? [laid, { ...laid, event: change(laid.event) }] : [laid]));
}
