/** A primary that is gone or does not answer: no call outlasts its deadline, and afterwards no restart is needed. */
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';

import type { Deadline } from '../../src/keys/clock.js';
import type { Digest } from '../../src/keys/digest.js';
import { isRefusal } from '../../src/keys/refusal.js';
import type { Store } from '../../src/store/port.js';
import { call } from '../support/call.js';
import { acme } from '../support/domain.js';
import { toCreate } from '../support/grpc-server.js';
import { type OwnMongod, startMongod } from '../support/mongod.js';
import { create, inOwnDatabase, openReplica, within } from '../support/mongodb-store.js';
import { pause, resume } from '../support/pause.js';
import { startService } from '../support/service.js';

let mongod: OwnMongod;
beforeAll(async () => {
  mongod = await startMongod();
});
afterAll(() => mongod[Symbol.asyncDispose]());

/** Every call of the port that takes a deadline. */
function calls(store: Store, digest: Uint8Array): [string, (deadline: Deadline) => Promise<unknown>][] {
  const keyQuery = { types: [], states: ['ACTIVE'] as const, at: new Date(), limit: 10 };
  const facts = { name: 'shop', kind: 'bearer', prefix: '', bodyLength: 49, uniqueNames: false } as const;
  const budget = { lineageId: 'key_1', windowMs: 60_000, limit: 100 };
  const bare: Digest = { algorithm: 'sha256', pepperVersion: 0, bytes: digest };
  return [
    ['change', (deadline) => create(store, { deadline })],
    ['change of another', (deadline) => create(store, { organization: { ...acme, organizationId: 'b' }, deadline })],
    ['findByDigest', (deadline) => store.findByDigest('shop', digest, deadline)],
    ['findOrganization', (deadline) => store.findOrganization(acme, deadline)],
    ['selectKeys', (deadline) => store.selectKeys(acme, { by: 'name', name: 'ci' }, deadline)],
    ['listKeys', (deadline) => store.listKeys(acme, keyQuery, deadline)],
    ['countExpired', (deadline) => store.countExpired(acme, new Date(), deadline)],
    ['listEvents', (deadline) => store.listEvents(acme, { types: [], afterSequence: 0, limit: 1 }, deadline)],
    ['recordUses', (deadline) => store.recordUses(new Map([['key_1', new Date()]]), deadline)],
    ['moveDigest', (deadline) => store.moveDigest('key_1', bare, { ...bare, pepperVersion: 1 }, deadline)],
    ['countDigests', (deadline) => store.countDigests(deadline)],
    ['hasDigests', (deadline) => store.hasDigests(1, deadline)],
    ['takeBudget', (deadline) => store.takeBudget({ ...budget, want: 1 }, deadline)],
    ['readBudget', (deadline) => store.readBudget(budget, deadline)],
    ['pepperFingerprints', (deadline) => store.pepperFingerprints(deadline)],
    ['rememberPeppers', (deadline) => store.rememberPeppers(new Map([[1, '0'.repeat(64)]]), deadline)],
    ['keyspaceFacts', (deadline) => store.keyspaceFacts(deadline)],
    ['rememberKeyspaces', (deadline) => store.rememberKeyspaces([facts], deadline)],
    ['ping', (deadline) => store.ping(deadline)],
  ];
}

async function createdDigest(store: Store): Promise<Uint8Array> {
  const created = await create(store);
  if (isRefusal(created)) throw new Error(created.refused);
  return created.key.digest.bytes;
}

/** How each call ended that was made with this deadline: `unavailable`, and no later than the deadline allows. */
async function endings(store: Store, digest: Uint8Array, deadlineMs: number): Promise<Record<string, unknown>> {
  const ended = calls(store, digest).map(async ([name, call]) => {
    const ending = call(within(deadlineMs)).then(
      () => 'answered',
      (error: unknown) => (error as { kind?: unknown }).kind ?? error,
    );
    // By a timer: where this process stands still it is as late as the call's own.
    return [name, await Promise.race([ending, sleep(deadlineMs + SLACK_MS, 'late', { ref: false })])];
  });
  return Object.fromEntries(await Promise.all(ended)) as Record<string, unknown>;
}

// For a machine that is busy; the driver's own limits are seconds above.
const SLACK_MS = 700;

function allUnavailable(store: Store): Record<string, unknown> {
  return Object.fromEntries(calls(store, new Uint8Array(32)).map(([name]) => [name, 'unavailable']));
}

test('a primary that hangs holds no call beyond its deadline, and nothing needs a restart when it goes on', async () => {
  await using store = await openReplica(inOwnDatabase(mongod.uri));
  const digest = await createdDigest(store);
  await pause(mongod.pid);
  try {
    expect(await endings(store, digest, 300)).toEqual(allUnavailable(store));
    // Once more, long after the driver has noticed.
    expect(await endings(store, digest, 4500)).toEqual(allUnavailable(store));
  } finally {
    resume(mongod.pid);
  }
  await createdDigest(store);
  for (const [name, call] of calls(store, digest)) {
    await expect(call(within(10_000)), name).resolves.not.toThrow();
  }
});

test('a statement that a paused primary carries out when it wakes up does not hold the organization', async () => {
  const uri = inOwnDatabase(mongod.uri);
  await using abandoned = await openReplica(uri);
  await using other = await openReplica(uri);
  await createdDigest(abandoned);
  await pause(mongod.pid);
  try {
    // Given up while the driver still waits; later its connection is closed, but the statement lies in the server's.
    await expect(create(abandoned, { deadline: within(200) })).rejects.toMatchObject({ kind: 'unavailable' });
    await expect(abandoned.ping(within(4500))).rejects.toMatchObject({ kind: 'unavailable' });
  } finally {
    resume(mongod.pid);
  }
  // The server itself would let go after 60 s.
  expect(await create(other, { deadline: within(20_000) })).toMatchObject({ replayed: false });
});

test('a killed primary answers UNAVAILABLE, and what was committed is there when it comes back', async () => {
  await using store = await openReplica(inOwnDatabase(mongod.uri));
  const digest = await createdDigest(store);
  await mongod.kill();
  expect(await endings(store, digest, 500)).toEqual(allUnavailable(store));
  await mongod.restart();
  const found = await store.findByDigest('shop', digest, within(10_000));
  expect(found).toBeDefined();
  await createdDigest(store);
});

test('a change waits for a primary that comes back before the deadline', async () => {
  await using store = await openReplica(inOwnDatabase(mongod.uri));
  await createdDigest(store);
  await mongod.kill();
  const creating = create(store, { name: 'meanwhile', deadline: within(25_000) });
  await mongod.restart();
  expect(await creating).toMatchObject({ replayed: false });
});

test('a service that is told to end while its primary hangs and calls wait for it ends within 10 s', async () => {
  await using service = await startService({ KEYREEVE_MONGODB_URI: mongod.uri });
  const createOne = () => call((done) => service.keys.createKey(toCreate({ keyspace: 'hygiara' }), done));
  await createOne();
  await pause(mongod.pid);
  try {
    const creating = createOne();
    creating.catch(() => undefined); // how it ends is asserted below
    await expect.poll(() => service.output()).toContain('the store does not answer');
    const ended = service.stop();
    expect(await ends(ended, 10_000)).toBe(true);
    expect(await ended).toBe(0);
    await expect(creating).rejects.toThrow();
  } finally {
    resume(mongod.pid);
  }
});

test('a service that is told to end at the moment when its primary hangs ends within 10 s', async () => {
  await using service = await startService({ KEYREEVE_MONGODB_URI: mongod.uri });
  const createOne = () => call((done) => service.keys.createKey(toCreate({ keyspace: 'hygiara' }), done));
  const creating = Array.from({ length: 8 }, () => createOne());
  await Promise.any(creating);
  await pause(mongod.pid);
  try {
    expect(await ends(service.stop(), 10_000)).toBe(true);
    await Promise.allSettled(creating);
  } finally {
    resume(mongod.pid);
  }
});

test('a store that is closed while its primary hangs is closed within seconds', async () => {
  const store = await openReplica(inOwnDatabase(mongod.uri));
  await createdDigest(store);
  await pause(mongod.pid);
  try {
    const creating = create(store, { deadline: within(60_000) });
    creating.catch(() => undefined); // how it ends is asserted below
    await expect(ends(store[Symbol.asyncDispose](), 12_000)).resolves.toBe(true);
    await expect(creating).rejects.toMatchObject({ kind: 'unavailable' });
    await expect(create(store)).rejects.toMatchObject({ kind: 'unavailable' });
  } finally {
    resume(mongod.pid);
  }
});

async function ends(work: PromiseLike<unknown>, ms: number): Promise<boolean> {
  return Promise.race([
    work.then(() => true),
    new Promise<boolean>((resolve) => setTimeout(() => resolve(false), ms).unref()),
  ]);
}
