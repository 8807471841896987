/** What the driver must be told, or not trusted with, when a real server fails in the middle of a change. */
import { afterAll, beforeAll, expect, test } from 'vitest';

import { isRefusal } from '../../src/keys/refusal.js';
import type { Store } from '../../src/store/port.js';
import { acme, aKey } from '../support/domain.js';
import { type FailingMongod, startFailingMongod } from '../support/mongod-process.js';
import { create, inOwnDatabase, openReplica, within } from '../support/mongodb-store.js';
import { toPut } from '../support/store-calls.js';

let mongod: FailingMongod;
beforeAll(async () => {
  mongod = await startFailingMongod();
});
afterAll(() => mongod[Symbol.asyncDispose]());

const openStore = () => openReplica(inOwnDatabase(mongod.uri));

async function eventsAndKeys(store: Store) {
  const { events } = await store.listEvents(acme, { types: [], afterSequence: 0, limit: 100 }, within(5000));
  const keys = await store.listKeys(acme, { types: [], states: ['ACTIVE'], at: new Date(0), limit: 100 }, within(5000));
  return { events: events.map(({ sequence }) => sequence), keys: keys.map(({ keyId }) => keyId) };
}

test('a transaction that fails in passing runs the rule again and gives one key and one event', async () => {
  await using store = await openStore();
  let runs = 0;
  await mongod.fail(['insert'], 1, { errorCode: 112, errorLabels: ['TransientTransactionError'] });
  const created = await create(store, { onRule: () => (runs += 1) });
  if (isRefusal(created)) throw new Error(created.refused);
  expect(runs).toBe(2);
  expect(await eventsAndKeys(store)).toEqual({ events: [1], keys: [created.key.keyId] });
});

test('a connection that breaks inside the transaction gives one key and one event', async () => {
  await using store = await openStore();
  await mongod.fail(['insert'], 1, { closeConnection: true });
  const created = await create(store);
  if (isRefusal(created)) throw new Error(created.refused);
  expect(await eventsAndKeys(store)).toEqual({ events: [1], keys: [created.key.keyId] });
});

test.each([
  ['update', 'of keys that were used before'],
  ['insert', 'of keys that were never used'],
])('last uses are written where the connection breaks at an %s %s', async (command, which) => {
  await using store = await openStore();
  const created = await create(store);
  if (isRefusal(created)) throw new Error(created.refused);
  const { keyId } = created.key;
  if (which.includes('before')) await store.recordUses(new Map([[keyId, new Date(1)]]), within(5000));
  await mongod.fail([command], 3, { closeConnection: true });
  await store.recordUses(new Map([[keyId, new Date(2)]]), within(10_000));
  const [key] = await store.selectKeys(acme, { by: 'key_id', keyId }, within(5000));
  expect(key?.lastUseTime).toEqual(new Date(2));
});

test.each([
  ['the connection breaks before the commit is carried out', 1, { closeConnection: true }],
  // The driver sends it again by itself once.
  ['it breaks thrice', 3, { closeConnection: true }],
  ['the commit is carried out and its majority is not confirmed', 1, { writeConcernError: { code: 64, errmsg: 'x' } }],
  ['that happens four times', 4, { writeConcernError: { code: 64, errmsg: 'x' } }],
  ['the primary steps down meanwhile', 2, { errorCode: 11602, errorLabels: ['RetryableWriteError'] }],
  ['the commit takes too long', 2, { errorCode: 50 }],
])('a commit whose result is unknown is sent again, and the rule is not run again: %s', async (_, times, how) => {
  await using store = await openStore();
  let runs = 0;
  await mongod.fail(['commitTransaction'], times, how);
  const created = await create(store, { onRule: () => (runs += 1) });
  if (isRefusal(created)) throw new Error(created.refused);
  expect(runs).toBe(1);
  expect(await eventsAndKeys(store)).toEqual({ events: [1], keys: [created.key.keyId] });
});

test('a commit that the server says did not happen runs the rule again', async () => {
  await using store = await openStore();
  let runs = 0;
  await mongod.fail(['commitTransaction'], 1, { errorCode: 251, errorLabels: ['TransientTransactionError'] });
  const created = await create(store, { onRule: () => (runs += 1) });
  if (isRefusal(created)) throw new Error(created.refused);
  expect(runs).toBe(2);
  expect(await eventsAndKeys(store)).toEqual({ events: [1], keys: [created.key.keyId] });
});

test('a commit waits until a majority of the members has it in its journal', async () => {
  await using store = await openStore();
  const commands = await mongod.logged(() => create(store));
  const commits = commands.filter((command) => 'commitTransaction' in command);
  expect(commits).toEqual([
    expect.objectContaining({ writeConcern: expect.objectContaining({ w: 'majority', j: true }) as unknown }),
  ]);
});

test('a commit that stays unknown until the deadline is UNAVAILABLE, and the same request id finds out', async () => {
  await using store = await openStore();
  await mongod.fail(['commitTransaction'], 1000, { writeConcernError: { code: 64, errmsg: 'x' } });
  const creating = create(store, { requestId: 'r1', deadline: within(3000) });
  await expect(creating).rejects.toMatchObject({
    name: 'StoreFault',
    kind: 'unavailable',
    message: expect.stringContaining('may have happened') as string,
  });
  await mongod.recover();
  const again = await create(store, { requestId: 'r1' });
  expect(again).toMatchObject({ replayed: true });
  expect((await eventsAndKeys(store)).events).toEqual([1]);
});

test('a commit that never arrived frees the organization, and the same request id makes the key', async () => {
  await using store = await openStore();
  await mongod.fail(['commitTransaction'], 1000, { closeConnection: true });
  const creating = create(store, { requestId: 'r1', deadline: within(3000) });
  await expect(creating).rejects.toMatchObject({ kind: 'unavailable' });
  await mongod.recover();
  expect(await create(store, { requestId: 'r1' })).toMatchObject({ replayed: false });
  expect((await eventsAndKeys(store)).events).toEqual([1]);
});

test('a change that is turned back until its deadline is CONTENTION and changes nothing', async () => {
  await using store = await openStore();
  await mongod.fail(['findAndModify'], 1000, { errorCode: 112, errorLabels: ['TransientTransactionError'] });
  await expect(create(store, { deadline: within(3000) })).rejects.toMatchObject({ kind: 'contention' });
  await mongod.recover();
  expect(await eventsAndKeys(store)).toEqual({ events: [], keys: [] });
});

test('a refusal is not answered before what it rests on is acknowledged by a majority', async () => {
  await using store = await openStore();
  const refusing = (ms: number) =>
    store.change({ organization: acme }, () => ({ refused: 'KEY_NOT_FOUND' }), within(ms));
  // The rule needs no look-up here, so this is the one that proves it.
  await mongod.fail(['find'], 1000, { errorCode: 50 });
  await expect(refusing(500)).rejects.toMatchObject({ kind: 'unavailable' });
  await mongod.recover();
  expect(await refusing(10_000)).toEqual({ refused: 'KEY_NOT_FOUND' });
});

test('a rule that throws changes nothing, and its error comes out as it is', async () => {
  await using store = await openStore();
  const broken = new Error('broken');
  const changing = store.change(
    { organization: acme },
    () => {
      throw broken;
    },
    within(5000),
  );
  await expect(changing).rejects.toBe(broken);
  for await (const { organizationId } of store.organizations()) expect.fail(`${organizationId} was written`);
  expect(await create(store)).toMatchObject({ replayed: false });
});

const budget = { lineageId: 'key_1', windowMs: 60_000, limit: 100, want: 10 };

test.each([
  ['the connection breaks before it is carried out', { closeConnection: true }],
  ['the primary steps down meanwhile', { errorCode: 11602, errorLabels: ['RetryableWriteError'] }],
  [
    'it is carried out and its majority is not confirmed',
    { writeConcernError: { code: 91, errmsg: 'x', errorLabels: ['RetryableWriteError'] } },
  ],
  ['another opened the window at the same moment', duplicateOf({ _id: 1 })],
])('what is taken from a budget is taken once: %s', async (_, how) => {
  await using store = await openStore();
  await store.takeBudget(budget, within(5000));
  await mongod.fail(['findAndModify'], 1, how);
  expect(await store.takeBudget(budget, within(5000))).toMatchObject({ taken: 10, left: 80 });
  expect(await store.readBudget(budget, within(5000))).toMatchObject({ left: 80 });
});

test('what a majority has not confirmed is not given out, and not given back either', async () => {
  await using store = await openStore();
  await mongod.fail(['findAndModify'], 1000, { writeConcernError: { code: 64, errmsg: 'x' } });
  await expect(store.takeBudget(budget, within(2000))).rejects.toMatchObject({ kind: 'unavailable' });
  await mongod.recover();
  // As soon as the majority has it.
  await expect.poll(() => store.readBudget(budget, within(5000))).toMatchObject({ left: 90 });
});

test.each([
  ['the connection breaks', 'update', { closeConnection: true }],
  ['no majority confirms it', 'commitTransaction', { writeConcernError: { code: 64, errmsg: 'x' } }],
  ['the primary steps down', 'update', { errorCode: 11602, errorLabels: ['RetryableWriteError'] }],
])('last uses that cannot be written are UNAVAILABLE, and can be written again: %s', async (_, command, how) => {
  await using store = await openStore();
  const created = await create(store);
  if (isRefusal(created)) throw new Error(created.refused);
  const { keyId } = created.key;
  const uses = new Map([[keyId, new Date(5)]]);
  await mongod.fail([command], 1000, how);
  await expect(store.recordUses(uses, within(1000))).rejects.toMatchObject({ name: 'StoreFault', kind: 'unavailable' });
  await mongod.recover();
  // What could not be written may have been.
  await store.recordUses(new Map([[keyId, new Date(6)]]), within(5000));
  const [key] = await store.selectKeys(acme, { by: 'key_id', keyId }, within(5000));
  expect(key?.lastUseTime).toEqual(new Date(6));
});

test('bookkeeping waits until a majority of the members has it in its journal', async () => {
  await using store = await openStore();
  const created = await create(store);
  if (isRefusal(created)) throw new Error(created.refused);
  const { keyId, digest } = created.key;
  const pending = await store.outbox.pending(1);
  const calls: Record<string, () => Promise<unknown>> = {
    takeBudget: () => store.takeBudget(budget, within(5000)),
    recordUses: () => store.recordUses(new Map([[keyId, new Date()]]), within(5000)),
    moveDigest: () => store.moveDigest(keyId, digest, { ...digest, pepperVersion: 1 }, within(5000)),
    rememberPeppers: () => store.rememberPeppers(new Map([[1, '0'.repeat(64)]]), within(5000)),
    markPublished: () => store.outbox.markPublished(pending, { sink: 'file', lane: 0, end: 9 }),
  };
  const durable = { writeConcern: expect.objectContaining({ w: 'majority', j: true }) as unknown };
  for (const [name, call] of Object.entries(calls)) {
    const commands = await mongod.logged(call);
    // Of a transaction the commit alone says what it waits for.
    const writes = commands.filter((one) => ('update' in one && !('autocommit' in one)) || 'findAndModify' in one);
    const commits = commands.filter((one) => 'commitTransaction' in one);
    expect(writes.length + commits.length, name).toBeGreaterThan(0);
    for (const write of [...writes, ...commits]) expect(write, name).toMatchObject(durable);
  }
});

test('a sink is not said to have come further than events are marked', async () => {
  await using store = await openStore();
  await create(store);
  const [event] = await store.outbox.pending(1);
  if (!event) throw new Error('nothing is pending');
  await mongod.fail(['update'], 1, { errorCode: 50 });
  const marking = store.outbox.markPublished([event], { sink: 'file', lane: 0, end: 9 });
  await expect(marking).rejects.toMatchObject({ kind: 'unavailable' });
  expect(await store.outbox.positions('file')).toEqual(new Map());
  expect(await store.outbox.pending(1)).toEqual([event]);
});

test('a digest that turns out to be taken, and was not seen to be, makes the rule run again', async () => {
  await using store = await openStore();
  const wanted = aKey();
  const importing = (digests: Uint8Array[]) => {
    let runs = 0;
    return store
      .change(
        { organization: acme, digests },
        ({ organization }) => {
          runs += 1;
          return toPut([wanted], organization.sequence);
        },
        within(5000),
      )
      .then(() => runs);
  };
  const taken = duplicateOf({ keyspace: 1, digest: 1 });
  await mongod.fail(['insert'], 1, taken);
  // Who did not ask for it decided without it.
  await expect(importing([])).rejects.toThrow('a change contradicts what is stored: keyspace, digest must be unique');
  await mongod.fail(['insert'], 1, taken);
  expect(await importing([aKey().digest.bytes, wanted.digest.bytes])).toBe(2);
  // Seen, and put nevertheless.
  const again = store.change(
    { organization: acme, digests: [wanted.digest.bytes] },
    ({ organization }) => toPut([aKey({ digest: wanted.digest })], organization.sequence),
    within(5000),
  );
  await expect(again).rejects.toThrow('a change contradicts what is stored');
});

/** How a statement fails that would write a second document with these fields. */
function duplicateOf(keyPattern: Record<string, 1>): Record<string, unknown> {
  return { errorCode: 11000, errorExtraInfo: { keyPattern, keyValue: {} } };
}
