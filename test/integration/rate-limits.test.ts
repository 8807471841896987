/** Rate limits through the API, and as replicas on one MongoDB share them. */
import { inject, expect, test } from 'vitest';

import type { Credential } from '../../src/gen/keyreeve/v1/credential.js';
import {
  RotateKeyRequest,
  type RotateKeyResponse,
  VerifyKeyRequest,
  type VerifyKeyResponse,
} from '../../src/gen/keyreeve/v1/key_service.js';
import { Decision } from '../../src/gen/keyreeve/v1/verification.js';
import { systemClock } from '../../src/keys/clock.js';
import { newKeyId } from '../../src/keys/ids.js';
import { StoreFault } from '../../src/store/faults.js';
import { type Admission, Budgets } from '../../src/verify/budgets.js';
import { call } from '../support/call.js';
import { ADA, create, startServer, type TestServer, toldBy } from '../support/grpc-server.js';
import { inOwnDatabase, openReplica, within } from '../support/mongodb-store.js';

function verifyAt({ keys }: TestServer, credential: Credential): Promise<VerifyKeyResponse> {
  return call((done) => keys.verifyKey({ ...VerifyKeyRequest.fromPartial({}), credential }, done));
}

test('60 a minute are let in, with an exact count, and then none until the time that is told', async () => {
  await using service = await startServer();
  const { credential } = await create(service, { keyspace: 'rated' });
  const remaining: unknown[] = [];
  for (let n = 0; n < 60; n += 1) remaining.push((await verifyAt(service, credential)).rateLimit?.remaining);
  expect(remaining).toEqual(Array.from({ length: 60 }, (_, n) => 59 - n));
  const { decision, rateLimit, cacheTtl, key } = await verifyAt(service, credential);
  expect(decision).toBe(Decision.RATE_LIMITED);
  expect(key?.keyspace).toBe('rated');
  expect(cacheTtl).toBeUndefined();
  expect(rateLimit).toMatchObject({ limit: 60, remaining: 0, window: { seconds: 60n, nanos: 0 } });
  const retryMs = Number(rateLimit?.retryAfter?.seconds) * 1000 + Number(rateLimit?.retryAfter?.nanos) / 1e6;
  expect(retryMs).toBeGreaterThan(0);
  expect(retryMs).toBeLessThanOrEqual(60_000);
  service.time.offsetMs += retryMs;
  service.time.monotonicOffsetMs += retryMs;
  expect(await verifyAt(service, credential)).toMatchObject({ decision: Decision.VALID, rateLimit: { remaining: 59 } });
});

test('a rotated key shares its budget with the one it replaces', async () => {
  await using service = await startServer();
  const { key, credential } = await create(service, { keyspace: 'rated' });
  const { credential: rotated } = await call<RotateKeyResponse>((done) =>
    service.keys.rotateKey(
      RotateKeyRequest.fromPartial({
        keyspace: 'rated',
        organizationId: 'acme',
        actor: ADA,
        selector: { selector: { $case: 'keyId', value: key.keyId } },
      }),
      done,
    ),
  );
  if (!rotated) throw new Error('no credential');
  for (let n = 0; n < 30; n += 1) await verifyAt(service, credential);
  for (let n = 0; n < 29; n += 1) await verifyAt(service, rotated);
  expect((await verifyAt(service, rotated)).rateLimit?.remaining).toBe(0);
  for (const presented of [credential, rotated]) {
    expect((await verifyAt(service, presented)).decision).toBe(Decision.RATE_LIMITED);
  }
});

test('while budgets cannot be asked for, what was taken is let in, and then the answer is UNAVAILABLE, never a denial', async () => {
  const isAway = () => {
    throw new StoreFault('unavailable', 'away');
  };
  let budgetsAway = false;
  await using service = await startServer({
    wrap: (store) => ({
      ...store,
      takeBudget: (...given) => (budgetsAway ? isAway() : store.takeBudget(...given)),
      readBudget: (...given) => (budgetsAway ? isAway() : store.readBudget(...given)),
    }),
  });
  const { credential } = await create(service, { keyspace: 'rated' });
  await verifyAt(service, credential);
  budgetsAway = true;
  for (let n = 0; n < 5; n += 1) expect((await verifyAt(service, credential)).decision).toBe(Decision.VALID);
  expect(await toldBy(verifyAt(service, credential))).toMatchObject({
    code: 'UNAVAILABLE',
    reason: 'STORE_UNAVAILABLE',
  });
  budgetsAway = false;
  expect((await verifyAt(service, credential)).decision).toBe(Decision.VALID);
});

test('three replicas on one MongoDB let in no more than the limit in a window, and most of it when used unevenly', async () => {
  const uri = inOwnDatabase(inject('mongodbUri'));
  const windowMs = 12_000;
  const limit = 200;
  const lineageId = newKeyId();
  const stores = await Promise.all([1, 2, 3].map(() => openReplica(uri)));
  try {
    const replicas = stores.map((store) => new Budgets({ store, clock: systemClock, windowMs }));
    const admitAt = (at: number): Promise<Admission> => {
      const replica = replicas[at];
      if (!replica) throw new Error('no such replica');
      return replica.admit(lineageId, limit, within(5000));
    };
    let count = 0;
    const spent = new Set<number>();
    let firstReset: number | undefined;
    // 9 : 1 : 0, until the window is spent for both.
    for (let n = 0; spent.size < 2; n += 1) {
      const at = n % 10 === 9 ? 1 : 0;
      const { admitted, standing } = await admitAt(at);
      firstReset ??= standing.resetTime?.getTime();
      if (Date.now() > (firstReset ?? 0)) throw new Error('the machine is too slow for a window of this length');
      if (admitted) count += 1;
      else spent.add(at);
    }
    expect(count).toBeLessThanOrEqual(limit);
    expect(count).toBeGreaterThanOrEqual(limit * 0.85);
    expect((await admitAt(2)).admitted).toBe(false);

    // All at once, from all three, in the window after.
    await expect.poll(() => Date.now()).toBeGreaterThan(firstReset ?? 0);
    const answers = await Promise.all(Array.from({ length: limit * 2 }, (_, n) => admitAt(n % 3)));
    expect(answers.filter(({ admitted }) => admitted)).toHaveLength(limit);
  } finally {
    for (const store of stores) await store[Symbol.asyncDispose]();
  }
});
