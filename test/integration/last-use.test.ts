/** Last uses of the service as built: what a stop writes, what a kill may lose, and that nothing else changes by them. */
import { expect, test } from 'vitest';

import { ListAuditEventsRequest, type ListAuditEventsResponse } from '../../src/gen/keyreeve/v1/audit_service.js';
import { ActorType } from '../../src/gen/keyreeve/v1/actor.js';
import type { Credential } from '../../src/gen/keyreeve/v1/credential.js';
import type { Key } from '../../src/gen/keyreeve/v1/key.js';
import {
  CreateKeyRequest,
  type CreateKeyResponse,
  GetKeyRequest,
  type GetKeyResponse,
  VerifyKeyRequest,
  type VerifyKeyResponse,
} from '../../src/gen/keyreeve/v1/key_service.js';
import { Decision } from '../../src/gen/keyreeve/v1/verification.js';
import { call } from '../support/call.js';
import { type Service, startService } from '../support/service.js';

const ORGANIZATION = { keyspace: 'hygiara', organizationId: 'acme' };
const ACTOR = { type: ActorType.USER, id: 'ada', permissions: [] };
const WRITTEN = { timeout: 15_000, interval: 100 };

async function create({ keys }: Service, name: string): Promise<{ key: Key; credential: Credential }> {
  const { key, credential } = await call<CreateKeyResponse>((done) =>
    keys.createKey(CreateKeyRequest.fromPartial({ ...ORGANIZATION, actor: ACTOR, name }), done),
  );
  if (!key || !credential) throw new Error('a key without credential was answered');
  return { key, credential };
}

async function use({ keys }: Service, credential: Credential): Promise<void> {
  const { decision } = await call<VerifyKeyResponse>((done) =>
    keys.verifyKey(VerifyKeyRequest.fromPartial({ credential }), done),
  );
  expect(decision).toBe(Decision.VALID);
}

async function keyOf({ keys }: Service, { keyId }: Key): Promise<Key | undefined> {
  const selector = { selector: { $case: 'keyId' as const, value: keyId } };
  const { key } = await call<GetKeyResponse>((done) =>
    keys.getKey(GetKeyRequest.fromPartial({ ...ORGANIZATION, selector }), done),
  );
  return key;
}

/** In milliseconds; undefined: never used. */
async function lastUseOf(service: Service, key: Key): Promise<number | undefined> {
  const time = (await keyOf(service, key))?.lastUseTime;
  return time && Number(time.seconds) * 1000 + time.nanos / 1e6;
}

test('a clean stop loses no use, and one moves neither the etag nor the audit', async () => {
  await using service = await startService();
  const [used, unused] = [await create(service, 'used'), await create(service, 'unused')];
  const before = Date.now();
  await use(service, used.credential);
  expect(await service.stop()).toBe(0);
  await service.restart();
  expect(await lastUseOf(service, used.key)).toBeGreaterThanOrEqual(before);
  expect(await lastUseOf(service, unused.key)).toBeUndefined();
  expect((await keyOf(service, used.key))?.etag).toBe(used.key.etag);
  const { events } = await call<ListAuditEventsResponse>((done) =>
    service.audit.listAuditEvents(ListAuditEventsRequest.fromPartial(ORGANIZATION), done),
  );
  expect(events).toHaveLength(2);
});

test('a kill loses the uses since the last writing alone', async () => {
  await using service = await startService();
  const { key, credential } = await create(service, 'ci');
  await use(service, credential);
  await expect.poll(() => lastUseOf(service, key), WRITTEN).toBeDefined();
  const written = await lastUseOf(service, key);
  await use(service, credential);
  await service.kill();
  await service.restart();
  expect(await lastUseOf(service, key)).toBeGreaterThanOrEqual(written ?? Infinity);
});
