/** What a verification asks of the store, and leaves behind there. */
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, onTestFinished, test, vi } from 'vitest';

import { systemRandom } from '../../src/keys/base62.js';
import { type Clock, systemClock } from '../../src/keys/clock.js';
import { newCredential, type NewCredential } from '../../src/keys/credential.js';
import type { Key } from '../../src/keys/key.js';
import type { Peppers } from '../../src/keys/pepper.js';
import { createLog } from '../../src/log.js';
import { StoreFault } from '../../src/store/faults.js';
import type { Following, Store } from '../../src/store/port.js';
import { openSqliteStore } from '../../src/store/sqlite/open.js';
import { Overloaded } from '../../src/verify/misses.js';
import { RecordCache } from '../../src/verify/record-cache.js';
import { openVerifier } from '../../src/verify/verifier.js';
import { aKey, aKeyspace, aPepper, SOURCE } from '../support/domain.js';
import { type GuardedFolder, makeGuardedFolder } from '../support/guard.js';
import { ample, put, revoke, update } from '../support/store-calls.js';

const keyspace = aKeyspace({
  plans: new Map([
    ['free', { name: 'free' }],
    ['one', { name: 'one', requestsPerMinute: 1 }],
    ['three', { name: 'three', requestsPerMinute: 3 }],
  ]),
});
let folder: GuardedFolder;
let store: Store;
beforeEach(async () => {
  folder = await makeGuardedFolder(join(tmpdir(), 'keyreeve-verifier-'));
  const options = { source: SOURCE, clock: systemClock, report: () => undefined };
  store = openSqliteStore({ dataDir: folder.path, ...options });
});
afterEach(async () => {
  await store[Symbol.asyncDispose]();
  await folder[Symbol.asyncDispose]();
});

/** That there is no such key is remembered for a second. */
const standing: Clock = { ...systemClock, monotonicMs: () => 0 };

function verifierOf(served: Store, peppers: Peppers = [], clock: Clock = systemClock) {
  const verify = openVerifier({ store: served, peppers, clock, log: createLog('silent') });
  const ask = ({ secret }: NewCredential, requiredScopes: string[] = [], caller = 'gateway') =>
    verify(
      {
        caller,
        credential: { kind: 'bearer', token: secret },
        keyspaces: [keyspace],
        named: false,
        sees: () => true,
        terms: { requiredScopes },
      },
      ample(),
    );
  return {
    ask,
    // What is thrown rejects.
    verify: async (...given: Parameters<typeof ask>) => ask(...given),
    figures: () => verify.figures(),
    [Symbol.asyncDispose]: () => verify[Symbol.asyncDispose](),
  };
}

async function issue(fields: Partial<Key> = {}): Promise<{ key: Key; credential: NewCredential }> {
  const credential = newCredential(keyspace.credential, [], systemRandom);
  const [key] = await put(store, [aKey({ digest: credential.digest, ...fields })]);
  if (!key) throw new Error('nothing was stored');
  return { key, credential };
}

async function lastUseOf(key: Key): Promise<Date | undefined> {
  const [stored] = await store.selectKeys(key, { by: 'key_id', keyId: key.keyId }, ample());
  return stored?.lastUseTime;
}

async function givePlan(plan: string): Promise<void> {
  await store.change(
    { organization: { keyspace: 'shop', organizationId: 'acme' } },
    () => ({ answer: undefined, widens: false, settings: { plan, suspended: false }, put: [], events: [] }),
    ample(),
  );
}

test('only a VALID answer is a use, and disposing writes it', async () => {
  const verifier = verifierOf(store);
  const { key, credential } = await issue();
  await givePlan('one');
  expect((await verifier.verify(credential, ['admin'])).decision).toBe('INSUFFICIENT_SCOPE');
  await verifier[Symbol.asyncDispose]();
  expect(await lastUseOf(key)).toBeUndefined();

  const next = verifierOf(store);
  const before = new Date();
  expect((await next.verify(credential)).decision).toBe('VALID');
  const limited = await next.verify(credential);
  expect(limited.decision).toBe('RATE_LIMITED');
  await next[Symbol.asyncDispose]();
  expect((await lastUseOf(key))?.getTime()).toBeGreaterThanOrEqual(before.getTime());
});

test('an organization with a plan that nobody knows is a fault: neither a yes nor a no', async () => {
  await using verifier = verifierOf(store);
  const { credential } = await issue();
  const { credential: revoked } = await issue({
    standing: { kind: 'revoked', time: new Date(), by: { type: 'USER', id: 'ada' }, reason: 'OTHER', detail: '' },
  });
  await givePlan('gone');
  await expect(verifier.verify(credential)).rejects.toThrow('plan');
  await expect(verifier.verify(revoked)).rejects.toThrow('plan');
});

test('a verification that does not come to VALID moves no record', async () => {
  const moved: string[] = [];
  const watched: Store = {
    ...store,
    moveDigest: (keyId, ...rest) => {
      moved.push(keyId);
      return store.moveDigest(keyId, ...rest);
    },
  };
  const verifier = verifierOf(watched, [aPepper(1)]);
  const { key, credential } = await issue();
  expect((await verifier.verify(credential, ['admin'])).decision).toBe('INSUFFICIENT_SCOPE');
  expect(moved).toEqual([]);
  expect((await verifier.verify(credential)).decision).toBe('VALID');
  expect(moved).toEqual([key.keyId]);
  await verifier[Symbol.asyncDispose]();
  expect(Object.fromEntries(await store.countDigests(ample()))).toEqual({ 1: 1 });
});

/** The store, with a count of what it was asked for. */
function counted(fields: Partial<Store> = {}): { served: Store; reads: () => number } {
  let reads = 0;
  const findByDigest: Store['findByDigest'] = (...given) => {
    reads += 1;
    return store.findByDigest(...given);
  };
  const follow: Store['follow'] = (follower) => {
    const following = store.follow(follower);
    const read: Following['read'] = (...given) => {
      reads += 1;
      return following.read(...given);
    };
    const readNow: Following['readNow'] = (...given) => {
      reads += 1;
      return following.readNow?.(...given);
    };
    return { ...following, read, readNow };
  };
  return { served: { ...store, findByDigest, follow, ...fields }, reads: () => reads };
}

/** Nobody tells of changes. */
function following(holds: () => boolean, read: Following['read'] = readFromStore): Following {
  return { holds, read, [Symbol.asyncDispose]: () => Promise.resolve() };
}

const readFromStore: Following['read'] = (keyspace, digest) => store.findByDigest(keyspace, digest, ample());

test('a key that has verified is not read again, and what becomes of it is known at once', async () => {
  const { served, reads } = counted();
  await using verifier = verifierOf(served);
  const { key, credential } = await issue();
  const decide = async () => (await verifier.verify(credential)).decision;
  expect([await decide(), await decide()]).toEqual(['VALID', 'VALID']);
  const settings = (suspended: boolean) =>
    store.change(
      { organization: { keyspace: 'shop', organizationId: 'acme' } },
      () => ({ answer: undefined, widens: false, settings: { suspended }, put: [], events: [] }),
      ample(),
    );
  await settings(true);
  expect(await decide()).toBe('ORGANIZATION_SUSPENDED');
  await settings(false);
  expect(await decide()).toBe('VALID');
  const disabled = await update(store, key, { disabled: true });
  expect(await decide()).toBe('DISABLED');
  await revoke(store, disabled);
  expect(await decide()).toBe('REVOKED');
  expect(reads()).toBe(1);
});

test('a credential that was looked for in vain verifies as soon as there is a key of it', async () => {
  const { served, reads } = counted();
  await using verifier = verifierOf(served, [], standing);
  const credential = newCredential(keyspace.credential, [], systemRandom);
  for (let n = 0; n < 3; n += 1) expect((await verifier.verify(credential)).decision).toBe('NOT_FOUND');
  expect(reads()).toBe(1);
  await put(store, [aKey({ digest: credential.digest })]);
  expect((await verifier.verify(credential)).decision).toBe('VALID');
});

test('a key that is stored under a newer pepper than others is not looked for under theirs again', async () => {
  let laterMs = 0;
  const clock: Clock = { now: () => new Date(), monotonicMs: () => performance.now() + laterMs };
  const { served, reads } = counted();
  await using verifier = verifierOf(served, [aPepper(1), aPepper(2)], clock);
  const credential = newCredential(keyspace.credential, [aPepper(1), aPepper(2)], systemRandom);
  await put(store, [aKey({ digest: credential.digest })]);
  expect((await verifier.verify(credential)).decision).toBe('VALID');
  expect(reads()).toBe(3);
  // What was not found there is forgotten by now.
  laterMs = 60_000;
  expect((await verifier.verify(credential)).decision).toBe('VALID');
  expect(reads()).toBe(3);
});

test('where nobody tells of changes each verification reads, and knows what the store knows', async () => {
  const follow = () => following(() => false);
  const { served, reads } = counted({ follow });
  await using verifier = verifierOf(served);
  const { key, credential } = await issue();
  for (let n = 0; n < 3; n += 1) expect((await verifier.verify(credential)).decision).toBe('VALID');
  await revoke(store, key);
  expect((await verifier.verify(credential)).decision).toBe('REVOKED');
  expect(reads()).toBe(4);
});

test('what was known is not used once nobody tells of changes', async () => {
  let holds = true;
  const follow = () => following(() => holds);
  await using verifier = verifierOf({ ...store, follow });
  const { key, credential } = await issue();
  expect((await verifier.verify(credential)).decision).toBe('VALID');
  await revoke(store, key);
  holds = false;
  expect((await verifier.verify(credential)).decision).toBe('REVOKED');
});

test('of a key with a limit only the budget is asked for again', async () => {
  const { served, reads } = counted();
  await using verifier = verifierOf(served);
  const { credential } = await issue();
  await givePlan('one');
  for (let n = 0; n < 3; n += 1) await verifier.verify(credential);
  expect(reads()).toBe(1);
});

test('a request counts once, also where nobody tells of changes any more as it is judged', async () => {
  let asked = 0;
  // It is asked as the record is looked for, as it is kept, and once for each verification from memory.
  const follow = () => following(() => (asked += 1) <= 3);
  await using verifier = verifierOf({ ...store, follow });
  const { credential } = await issue();
  await givePlan('three');
  const decisions = [];
  for (let n = 0; n < 4; n += 1) decisions.push((await verifier.verify(credential)).decision);
  expect(decisions).toEqual(['VALID', 'VALID', 'VALID', 'RATE_LIMITED']);
});

test('what was told no more while a record was read is read again by itself', async () => {
  let holds = true;
  const { key, credential } = await issue();
  const read: Following['read'] = async (...given) => {
    const found = await readFromStore(...given);
    await revoke(store, key);
    holds = false;
    return found;
  };
  await using verifier = verifierOf({ ...store, follow: () => following(() => holds, read) });
  expect((await verifier.verify(credential)).decision).toBe('REVOKED');
});

test('a read that fails is a fault where changes are still told of, and else the store itself is asked', async () => {
  let holds = true;
  let endsToo = false;
  const { credential } = await issue();
  const read: Following['read'] = () => {
    holds = !endsToo;
    return Promise.reject(new StoreFault('unavailable', 'the test lets it fail'));
  };
  await using verifier = verifierOf({ ...store, follow: () => following(() => holds, read) });
  await expect(verifier.verify(credential)).rejects.toThrow('lets it fail');
  endsToo = true;
  expect((await verifier.verify(credential)).decision).toBe('VALID');
});

test('whoever asks for too much that is not known is told so, and nobody else is kept waiting', async () => {
  const { credential } = await issue();
  const { credential: other } = await issue();
  const noise = () => newCredential(keyspace.credential, [], systemRandom);
  let release = (): void => undefined;
  const gate: { held?: Promise<void> } = {};
  const read: Following['read'] = async (...given) => {
    await gate.held;
    return readFromStore(...given);
  };
  const follow: Store['follow'] = (follower) => {
    const { readNow: _, ...rest } = store.follow(follower);
    return { ...rest, read };
  };
  await using verifier = verifierOf({ ...store, follow });
  expect((await verifier.verify(credential)).decision).toBe('VALID');
  gate.held = new Promise((resolve) => (release = resolve));
  const waiting = Array.from({ length: 1000 }, () => verifier.verify(noise()));
  await expect(verifier.verify(noise())).rejects.toBeInstanceOf(Overloaded);
  expect(verifier.figures()).toMatchObject({ misses: { waiting: 1000, turnedDown: 1 }, undecided: 1 });
  // What memory holds waits for nobody.
  expect((await verifier.verify(credential)).decision).toBe('VALID');
  const elsewhere = verifier.verify(other, [], 'another gateway');
  release();
  expect((await elsewhere).decision).toBe('VALID');
  expect(new Set((await Promise.all(waiting)).map(({ decision }) => decision))).toEqual(new Set(['NOT_FOUND']));
  expect(verifier.figures().misses).toEqual({ waiting: 0, turnedDown: 1 });
  expect((await verifier.verify(other)).decision).toBe('VALID');
});

/** What a verifier that knows nothing yet decides at once. */
async function decideCold(credential: NewCredential, peppers: Peppers = []): Promise<string> {
  await using verifier = verifierOf(store, peppers);
  const answered = verifier.ask(credential);
  return answered instanceof Promise ? 'waits' : answered.decision;
}

test('a key that memory does not hold is answered at once by a store that need not be waited for, whatever changed it', async () => {
  const suspend = (suspended: boolean) =>
    store.change(
      { organization: { keyspace: 'shop', organizationId: 'acme' } },
      () => ({ answer: undefined, widens: false, settings: { suspended }, put: [], events: [] }),
      ample(),
    );
  const credential = newCredential(keyspace.credential, [], systemRandom);
  expect(await decideCold(credential)).toBe('NOT_FOUND');
  const [key] = await put(store, [aKey({ digest: credential.digest })]);
  expect(await decideCold(credential)).toBe('VALID');
  await suspend(true);
  expect(await decideCold(credential)).toBe('ORGANIZATION_SUSPENDED');
  await suspend(false);
  const disabled = key && (await update(store, key, { disabled: true }));
  expect(await decideCold(credential)).toBe('DISABLED');
  const enabled = disabled && (await update(store, disabled, { disabled: false }));
  // Its digest is moved by the first of these, and found in its new form by the second.
  for (let n = 0; n < 2; n += 1) expect(await decideCold(credential, [aPepper(1)])).toBe('VALID');
  expect(Object.fromEntries(await store.countDigests(ample()))).toEqual({ 1: 1 });
  expect(await decideCold(credential)).toBe('NOT_FOUND');
  if (enabled) await revoke(store, enabled);
  expect(await decideCold(credential, [aPepper(1)])).toBe('REVOKED');
});

test('what was read at once stays out of the answer where nobody tells of changes by the time that it is judged', async () => {
  const { key, credential } = await issue();
  let holds = true;
  const readNow: Following['readNow'] = (...given) => {
    const found = store.follow(new RecordCache({ clock: systemClock })).readNow?.(...given);
    holds = false;
    return found;
  };
  const findByDigest: Store['findByDigest'] = async (...given) => {
    await revoke(store, key);
    return store.findByDigest(...given);
  };
  const follow = () => ({ ...following(() => holds), readNow });
  await using verifier = verifierOf({ ...store, findByDigest, follow });
  expect((await verifier.verify(credential)).decision).toBe('REVOKED');
});

test('a store that cannot read at once is a fault, and never a key that is not there', async () => {
  const { credential } = await issue();
  const readNow: Following['readNow'] = () => {
    throw new StoreFault('unavailable', 'the test lets it fail');
  };
  await using verifier = verifierOf({ ...store, follow: () => ({ ...following(() => true), readNow }) });
  for (let n = 0; n < 2; n += 1) expect(() => verifier.ask(credential)).toThrow('lets it fail');
  expect(verifier.figures().undecided).toBe(2);
});

test('what memory answers, what it reads, and what joins a read is counted, each once', async () => {
  const { credential } = await issue();
  const noise = newCredential(keyspace.credential, [], systemRandom);
  const follow: Store['follow'] = (follower) => {
    const { readNow: _, ...rest } = store.follow(follower);
    return rest;
  };
  await using verifier = verifierOf({ ...store, follow }, [], standing);
  await Promise.all([credential, credential, credential, noise].map((one) => verifier.verify(one)));
  for (const one of [credential, credential, noise]) await verifier.verify(one);
  const { lookUps, cache, decisions, lease } = verifier.figures();
  expect(lookUps).toEqual({ hit: 2, absent: 1, unknown: 4 });
  expect(cache).toEqual({ keys: 1, reads: 2, joined: 2, filled: 1, evicted: 0 });
  expect(decisions.get('shop')).toMatchObject({ VALID: 5, NOT_FOUND: 0 });
  // Nothing says whose keyspace it is that a key is not found in.
  expect(decisions.get('')).toMatchObject({ VALID: 0, NOT_FOUND: 2 });
  expect(lease).toEqual({ holds: true });
});

test('what is read for want of a lease is counted, and what fails then', async () => {
  const { credential } = await issue();
  let isAway = false;
  const findByDigest: Store['findByDigest'] = (...given) =>
    isAway ? Promise.reject(new StoreFault('unavailable', 'the test lets it fail')) : store.findByDigest(...given);
  const lease = () => ({ remainingMs: 0, replicas: 2 });
  const follow = () => ({ ...following(() => false), lease });
  await using verifier = verifierOf({ ...store, findByDigest, follow });
  for (let n = 0; n < 2; n += 1) await verifier.verify(credential);
  isAway = true;
  await expect(verifier.verify(credential)).rejects.toThrow('lets it fail');
  const figures = verifier.figures();
  expect(figures.unleased).toEqual({ read: 2, failed: 1 });
  expect(figures.undecided).toBe(1);
  expect(figures.lease).toEqual({ holds: false, remainingMs: 0, replicas: 2 });
  expect(figures.cache).toMatchObject({ keys: 0, reads: 0 });
});

test('of requests that count, the admitted, the refused and the parts of a budget are counted, and what is to be written', async () => {
  // Last uses are written every few seconds.
  vi.useFakeTimers({ toFake: ['setInterval'] });
  onTestFinished(() => void vi.useRealTimers());
  await using verifier = verifierOf(store);
  const { credential } = await issue();
  await givePlan('three');
  for (let n = 0; n < 5; n += 1) await verifier.verify(credential);
  const { budgets, lastUses, decisions } = verifier.figures();
  expect(budgets).toEqual({ blocks: 3, admitted: 3, refused: 2 });
  expect(lastUses).toEqual({ pending: 1, written: 0, lost: 0 });
  expect(decisions.get('shop')).toMatchObject({ VALID: 3, RATE_LIMITED: 2 });
});
