/** What a verification asks of the store, and leaves behind there. */
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';

import { systemRandom } from '../../src/keys/base62.js';
import { systemClock } from '../../src/keys/clock.js';
import { newCredential, type NewCredential } from '../../src/keys/credential.js';
import type { Key } from '../../src/keys/key.js';
import type { Peppers } from '../../src/keys/pepper.js';
import { createLog } from '../../src/log.js';
import type { Store } from '../../src/store/port.js';
import { openSqliteStore } from '../../src/store/sqlite/open.js';
import { openVerifier } from '../../src/verify/verifier.js';
import { aKey, aKeyspace, aPepper, SOURCE } from '../support/domain.js';
import { type GuardedFolder, makeGuardedFolder } from '../support/guard.js';
import { ample, put } from '../support/store-calls.js';

const keyspace = aKeyspace({
  plans: new Map([
    ['free', { name: 'free' }],
    ['one', { name: 'one', requestsPerMinute: 1 }],
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

function verifierOf(served: Store, peppers: Peppers = []) {
  const verify = openVerifier({ store: served, peppers, clock: systemClock, log: createLog('silent') });
  return {
    verify: ({ secret }: NewCredential, requiredScopes: string[] = []) =>
      verify(
        {
          credential: { kind: 'bearer', token: secret },
          keyspaces: [keyspace],
          named: false,
          sees: () => true,
          terms: { requiredScopes },
        },
        ample(),
      ),
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
