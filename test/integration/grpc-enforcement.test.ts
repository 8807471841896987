/** What callers are told of enforcement while a replica says nothing: which calls wait for it, and for how long. */
import { randomUUID } from 'node:crypto';
import { Metadata, type ServiceError, status } from '@grpc/grpc-js';
import { Int32, Long, MongoClient, Timestamp } from 'mongodb';
import { afterAll, beforeAll, expect, inject, test } from 'vitest';

import type { Enforcement } from '../../src/gen/keyreeve/v1/enforcement.js';
import type { RevokeKeyResponse, RotateKeyResponse, UpdateKeyResponse } from '../../src/gen/keyreeve/v1/key_service.js';
import type { UpdateOrganizationResponse } from '../../src/gen/keyreeve/v1/organization_service.js';
import type { Key } from '../../src/gen/keyreeve/v1/key.js';
import { Secret } from '../../src/keys/secret.js';
import { openMongoStore } from '../../src/store/mongodb/open.js';
import { call } from '../support/call.js';
import { SOURCE } from '../support/domain.js';
import {
  create,
  startServer,
  type TestServer,
  toRevoke,
  toRotate,
  toUpdate,
  toUpdateOrganization,
} from '../support/grpc-server.js';
import { inOwnDatabase } from '../support/mongodb-store.js';

/** Of the replica that says nothing: longer than any test. */
const SILENT_LEASE_MS = 300_000;
const PATIENCE_MS = 2000;
const CACHE_TTL_MS = 5000;

const uri = inOwnDatabase(inject('mongodbUri'));
let client: MongoClient;
let service: TestServer;

beforeAll(async () => {
  client = new MongoClient(uri);
  const options = { uri: new Secret(uri), source: SOURCE, report: () => undefined };
  service = await startServer({ openStore: (clock) => openMongoStore({ ...options, clock }) });
  await client
    .db()
    .collection<{ _id: string }>('replicas')
    .insertOne({
      _id: 'silent',
      number: Long.ONE,
      applied: new Timestamp({ t: 1, i: 1 }),
      lease_ms: new Int32(SILENT_LEASE_MS),
    } as { _id: string });
});
afterAll(async () => {
  await service[Symbol.asyncDispose]();
  await client.db().dropDatabase();
  await client.close();
});

const soon = () => ({ deadline: Date.now() + PATIENCE_MS });
const overlap = (seconds: bigint) => ({ overlap: { seconds, nanos: 0 } });
const inAnHour = () => ({ seconds: BigInt(Math.floor(Date.now() / 1000) + 3600), nanos: 0 });

const revoke = (key: Key, fields = {}) =>
  enforcementOf<RevokeKeyResponse>((done) =>
    service.keys.revokeKey(toRevoke(key, fields), new Metadata(), soon(), done),
  );
const rotate = (key: Key, fields = {}) => {
  const request = toRotate(key, { requestId: randomUUID(), ...fields });
  return enforcementOf<RotateKeyResponse>((done) => service.keys.rotateKey(request, new Metadata(), soon(), done));
};
const update = (key: Key, changes: Partial<Key>) => {
  const request = toUpdate(key, changes, { requestId: randomUUID() });
  return enforcementOf<UpdateKeyResponse>((done) => service.keys.updateKey(request, new Metadata(), soon(), done));
};
const updateOrganization = (changes: { plan?: string; suspended?: boolean }) => {
  const request = toUpdateOrganization(changes, { requestId: randomUUID() });
  return enforcementOf<UpdateOrganizationResponse>((done) =>
    service.organizations.updateOrganization(request, new Metadata(), soon(), done),
  );
};

/** @param begin is done again where the machine stood still for so long that there was no answer in time */
async function enforcementOf<R extends { enforcement?: Enforcement | undefined }>(
  begin: Parameters<typeof call<R>>[0],
): Promise<Enforcement> {
  for (;;) {
    const answer = await call<R>(begin).catch((error: unknown) => {
      if ((error as ServiceError).code !== status.DEADLINE_EXCEEDED) throw error;
    });
    if (!answer) continue;
    if (!answer.enforcement) throw new Error('nothing was said of enforcement');
    return answer.enforcement;
  }
}

async function aKey(): Promise<Key> {
  return (await create(service, { scopes: ['read', 'write'] })).key;
}

const taking: [string, () => Promise<Enforcement>][] = [
  ['revoking', async () => revoke(await aKey())],
  ['disabling', async () => update(await aKey(), { disabled: true })],
  ['narrowing scopes', async () => update(await aKey(), { scopes: ['read'] })],
  ['an earlier expiry', async () => update(await aKey(), { expireTime: inAnHour() })],
  ['rotating with overlap 0', async () => rotate(await aKey(), overlap(0n))],
  ['rotating with an overlap', async () => rotate(await aKey(), overlap(60n))],
  ['suspending', async () => updateOrganization({ suspended: true })],
  ['another plan', async () => updateOrganization({ plan: 'large' })],
];

test.concurrent.for(taking)('%s is not complete while a replica may not know of it', async ([, take]) => {
  const before = Date.now();
  const { complete, completeByTime, cachesClearTime } = await take();
  expect(complete).toBe(false);
  // By then its lease is over, and not before.
  expect(toMs(completeByTime)).toBeGreaterThanOrEqual(before + 1.2 * SILENT_LEASE_MS);
  expect(toMs(cachesClearTime) - toMs(completeByTime)).toBeGreaterThanOrEqual(CACHE_TTL_MS);
});

const others: [string, () => Promise<Enforcement>][] = [
  ['another name', async () => update(await aKey(), { name: 'other' })],
  ['labels', async () => update(await aKey(), { labels: new Map([['env', 'prod']]) })],
  ['switching a key on', async () => update(await aKey(), { disabled: false })],
  ['a rotation that lets the old key live', async () => rotate(await aKey())],
  ['resuming', async () => updateOrganization({ suspended: false })],
];

test.concurrent.for(others)('%s takes nothing away and waits for nobody', async ([, change]) => {
  const { complete, completeByTime } = await change();
  expect({ complete, completeByTime }).toEqual({ complete: true, completeByTime: undefined });
});

test('a rotation that ends an older key of the lineage is not complete, whatever becomes of the old one', async () => {
  const key = await aKey();
  const rotated = await call<RotateKeyResponse>((done) => service.keys.rotateKey(toRotate(key), done));
  if (!rotated.key) throw new Error('a rotation without its key');
  expect(await rotate(rotated.key)).toMatchObject({ complete: false });
});

test('a repeat waits again, with its request id or without, and of a rotation too', async () => {
  const [key, other] = [await aKey(), await aKey()];
  const first = { requestId: 'b7e1a1b0-0000-4000-8000-000000000001' };
  const rotation = { requestId: 'b7e1a1b0-0000-4000-8000-000000000002', ...overlap(0n) };
  const incomplete = { complete: false };
  expect(await Promise.all([revoke(key, first), rotate(other, rotation)])).toMatchObject([incomplete, incomplete]);
  const again = [revoke(key, first), revoke(key), rotate(other, rotation)];
  expect(await Promise.all(again)).toMatchObject([incomplete, incomplete, incomplete]);
});

test('once the replica is gone all is complete', async () => {
  const key = await aKey();
  expect(await revoke(key)).toMatchObject({ complete: false });
  await client.db().collection<{ _id: string }>('replicas').deleteOne({ _id: 'silent' });
  expect(await revoke(key)).toMatchObject({ complete: true, completeByTime: undefined });
});

function toMs(time: { seconds: bigint; nanos: number } | undefined): number {
  if (!time) throw new Error('no time');
  return Number(time.seconds) * 1000 + time.nanos / 1e6;
}
