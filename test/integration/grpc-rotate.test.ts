/** Rotating, as clients see it: both keys, their names and places, and a lost answer. */
import { randomUUID } from 'node:crypto';
import { expect, test } from 'vitest';

import type { Credential } from '../../src/gen/keyreeve/v1/credential.js';
import { type Key, type KeySelector, KeyState, RevocationReason } from '../../src/gen/keyreeve/v1/key.js';
import {
  type CreateKeyResponse,
  type GetKeyResponse,
  type RevokeKeyResponse,
  type RotateKeyRequest,
  type RotateKeyResponse,
  VerifyKeyRequest,
  type VerifyKeyResponse,
} from '../../src/gen/keyreeve/v1/key_service.js';
import { Decision } from '../../src/gen/keyreeve/v1/verification.js';
import type { CloudEvent } from '../../src/keys/chain.js';
import { call } from '../support/call.js';
import { expectWhole } from '../support/expect-whole.js';
import {
  ADA,
  create,
  letIn,
  startServer,
  type TestServer,
  toCreate,
  toldBy,
  toRevoke,
  toRotate,
  toUpdate,
  toUpdateOrganization,
} from '../support/grpc-server.js';

const NO_OVERLAP = { seconds: 0n, nanos: 0 };
const seconds = (n: number) => ({ seconds: BigInt(n), nanos: 0 });
const inNamed = { keyspace: 'named', organizationId: 'acme' };
const byName = (value: string): KeySelector => ({ selector: { $case: 'name', value } });

test('without overlap both keys work until the old one is revoked, and the new one takes over what the old one had', async () => {
  await using service = await startServer();
  const { key: old, credential: before } = await create(service, {
    ...inNamed,
    name: 'deploy',
    type: 'AWS',
    scopes: ['read'],
    labels: new Map([['env', 'prod']]),
    expiration: { $case: 'ttl', value: seconds(3600) },
  });
  const { key, previousKey, credential: after, enforcement, replayed } = await rotate(service, old);
  expect(key).toMatchObject({
    ...inNamed,
    name: 'deploy',
    type: 'AWS',
    state: KeyState.ACTIVE,
    scopes: ['read'],
    labels: new Map([['env', 'prod']]),
    lineageId: old.keyId,
    rotatedFrom: old.keyId,
    supersededBy: '',
    publicId: key.keyId.replace('key_', 'named.'),
    expireTime: old.expireTime,
  });
  expect(previousKey).toMatchObject({
    ...old,
    supersededBy: key.keyId,
    etag: expect.not.stringMatching(old.etag) as string,
  });
  expect(enforcement).toMatchObject({ complete: true, completeByTime: undefined });
  expect(enforcement?.cachesClearTime).toBeDefined();
  expect(replayed).toBe(false);
  expect(secretOf(after)).not.toBe(secretOf(before));
  expect(await decide(service, before)).toBe(Decision.VALID);
  expect(await decide(service, after)).toBe(Decision.VALID);
  await revoke(service, old);
  expect(await decide(service, before)).toBe(Decision.REVOKED);
  expect(await decide(service, after)).toBe(Decision.VALID);
  expect(await typesOf(service, inNamed)).toEqual(['key.created', 'key.rotated', 'key.revoked']);
});

test('an overlap of 0 revokes the old key at once, and one event tells of both keys', async () => {
  await using service = await startServer();
  const { key: old, credential } = await create(service);
  const { key, previousKey } = await rotate(service, old, { overlap: NO_OVERLAP });
  expect(previousKey).toMatchObject({
    state: KeyState.REVOKED,
    revocationReason: RevocationReason.SUPERSEDED,
    supersededBy: key.keyId,
    revokedBy: { id: 'ada' },
  });
  expect(await decide(service, credential)).toBe(Decision.REVOKED);
  const events = await expectWhole(service.store, old);
  const { data } = JSON.parse(events.at(-1)?.cloudEvent ?? '') as CloudEvent;
  expect(events).toHaveLength(2);
  expect(data).toMatchObject({
    reason: 'SUPERSEDED',
    key: { key_id: key.keyId },
    previous_key: { key_id: old.keyId, before: { state: 'ACTIVE' }, after: { state: 'REVOKED' } },
  });
});

test('a positive overlap brings the old key’s end forward, and never puts it off', async () => {
  await using service = await startServer();
  const { key: endless, credential } = await create(service);
  const first = await rotate(service, endless, { overlap: seconds(60) });
  expect(first.key.expireTime).toBeUndefined();
  expect(await decide(service, credential)).toBe(Decision.VALID);
  service.time.offsetMs = 60_000;
  expect(await decide(service, credential)).toBe(Decision.EXPIRED);
  const { key: brief } = await create(service, { expiration: { $case: 'ttl', value: seconds(10) } });
  const second = await rotate(service, brief, { overlap: seconds(60) });
  expect(second.previousKey.expireTime).toEqual(brief.expireTime);
});

test('where the keyspace bounds the overlap, an absent one is its maximum', async () => {
  await using service = await startServer();
  const { key } = await create(service, { keyspace: 'brief' });
  const { key: successor, previousKey } = await rotate(service, key);
  expect(toMs(previousKey.expireTime) - toMs(successor.createTime)).toBe(60_000);
});

test('the new key ends as the old one would have, unless another end is asked for', async () => {
  await using service = await startServer();
  const { key } = await create(service, { expiration: { $case: 'ttl', value: seconds(100) } });
  const { key: same } = await rotate(service, key, { overlap: seconds(1) });
  expect(same.expireTime).toEqual(key.expireTime);
  const { key: later } = await rotate(service, same, { expiration: { $case: 'ttl', value: seconds(1000) } });
  expect(toMs(later.expireTime) - toMs(later.createTime)).toBe(1_000_000);
});

test('a lineage has one superseded key at most: rotating again ends the older one, with an event of its own', async () => {
  await using service = await startServer();
  const { key: first, credential } = await create(service);
  const { key: second, credential: next } = await rotate(service, first);
  const { key: third, previousKey } = await rotate(service, second);
  expect(third.lineageId).toBe(first.keyId);
  expect(previousKey.keyId).toBe(second.keyId);
  expect(await decide(service, credential)).toBe(Decision.REVOKED);
  expect(await decide(service, next)).toBe(Decision.VALID);
  expect(await get(service, first)).toMatchObject({
    state: KeyState.REVOKED,
    revocationReason: RevocationReason.SUPERSEDED,
  });
  expect(await typesOf(service)).toEqual(['key.created', 'key.rotated', 'key.rotated', 'key.revoked']);
});

test('through a rotation the name stays taken, selects the new key, and revoking by it takes the whole lineage', async () => {
  await using service = await startServer();
  const { key: old, credential } = await create(service, { ...inNamed, name: 'deploy' });
  const { key, credential: next } = await rotate(service, old, { selector: byName(' deploy ') });
  const taken = await toldBy(create(service, { ...inNamed, name: 'deploy' }));
  expect(taken).toMatchObject({ code: 'ALREADY_EXISTS', reason: 'NAME_TAKEN' });
  const revoked = await revoke(service, old, { selector: byName('deploy') });
  expect(revoked).toMatchObject({ key: { keyId: key.keyId }, previousKey: { keyId: old.keyId } });
  expect([revoked.key?.state, revoked.previousKey?.state]).toEqual([KeyState.REVOKED, KeyState.REVOKED]);
  expect(await decide(service, credential)).toBe(Decision.REVOKED);
  expect(await decide(service, next)).toBe(Decision.REVOKED);
  expect(await typesOf(service, inNamed)).toEqual(['key.created', 'key.rotated', 'key.revoked', 'key.revoked']);
  await create(service, { ...inNamed, name: 'deploy' });
});

test('revoking by id takes one key of a lineage, the old or the new', async () => {
  await using service = await startServer();
  const { key: old, credential } = await create(service);
  const { key, credential: next } = await rotate(service, old);
  expect((await revoke(service, key)).previousKey).toBeUndefined();
  expect(await decide(service, next)).toBe(Decision.REVOKED);
  expect(await decide(service, credential)).toBe(Decision.VALID);
});

test('a key that has lost its place frees it: rotating at the limit works, and creating beyond it does not', async () => {
  await using service = await startServer();
  const limited = { keyspace: 'limited' };
  const { key } = await create(service, limited);
  await create(service, limited);
  await create(service, limited);
  const { key: next } = await rotate(service, key);
  await rotate(service, next);
  expect(await toldBy(create(service, limited))).toMatchObject({ reason: 'KEY_LIMIT_REACHED' });
});

test('a pair key gets a new client id and a new secret, and a key that is switched off stays so', async () => {
  await using service = await startServer();
  const { key: old } = await create(service, { keyspace: 'pair' });
  await call((done) => service.keys.updateKey(toUpdate(old, { disabled: true }), done));
  const { key, credential } = await rotate(service, old, {
    selector: { selector: { $case: 'clientId', value: old.clientId } },
  });
  expect(key.clientId).toMatch(/^client_/);
  expect(key.clientId).not.toBe(old.clientId);
  expect(credential?.kind).toMatchObject({ $case: 'client', value: { clientId: key.clientId } });
  expect(key.state).toBe(KeyState.DISABLED);
});

test('a create whose answer got lost is recovered by rotating with overlap 0: one key works, and the lost one does not', async () => {
  await using service = await startServer();
  const requestId = randomUUID();
  const lost = await create(service, { requestId });
  const repeat = await call<CreateKeyResponse>((done) => service.keys.createKey(toCreate({ requestId }), done));
  expect(repeat).toMatchObject({ replayed: true, credential: undefined });
  if (!repeat.key) throw new Error('no key');
  const { credential } = await rotate(service, repeat.key, { overlap: NO_OVERLAP });
  expect(await decide(service, credential)).toBe(Decision.VALID);
  expect(await decide(service, lost.credential)).toBe(Decision.REVOKED);
});

test('a repeated rotation answers the same two keys as they are now, without credential, also after a restart', async () => {
  await using service = await startServer();
  const { key: old } = await create(service, { name: 'x' });
  const fields = { requestId: randomUUID(), selector: byName('x'), overlap: seconds(60) };
  const first = await rotate(service, old, fields);
  await service.restart();
  service.time.offsetMs = 60_000;
  const again = await rotate(service, old, { ...fields, actor: { ...ADA, permissions: [] } });
  expect(again).toMatchObject({ replayed: true, credential: undefined, key: first.key });
  expect(again.previousKey).toEqual({ ...first.previousKey, state: KeyState.EXPIRED });
  expect(again.enforcement?.complete).toBe(true);
  const told = await toldBy(rotate(service, old, { ...fields, overlap: NO_OVERLAP }));
  expect(told).toMatchObject({ code: 'FAILED_PRECONDITION', reason: 'REQUEST_ID_REUSED' });
  expect(await expectWhole(service.store, old)).toHaveLength(2);
});

test('another caller’s request under the same id is no repeat', async () => {
  const { callers, as } = letIn({ first: { roles: ['provisioner'] }, second: { roles: ['provisioner'] } });
  await using service = await startServer({ callers });
  const created = await call<CreateKeyResponse>((done) =>
    service.keys.createKey(toCreate({ actor: undefined }), as.first, done),
  );
  if (!created.key) throw new Error('no key');
  const request = toRotate(created.key, { actor: undefined, requestId: 'r1' });
  const one = await call<RotateKeyResponse>((done) => service.keys.rotateKey(request, as.first, done));
  if (!one.key) throw new Error('no key');
  const next = toRotate(one.key, { actor: undefined, requestId: 'r1' });
  const two = await call<RotateKeyResponse>((done) => service.keys.rotateKey(next, as.second, done));
  expect([one.replayed, two.replayed]).toEqual([false, false]);
});

test('retries that race rotate once, and one of them gets the credential', async () => {
  await using service = await startServer();
  const { key } = await create(service);
  const requestId = randomUUID();
  const answers = await Promise.all(Array.from({ length: 10 }, () => rotate(service, key, { requestId })));
  expect(new Set(answers.map((answer) => answer.key.keyId)).size).toBe(1);
  expect(answers.filter(({ credential }) => credential !== undefined)).toHaveLength(1);
  expect(await expectWhole(service.store, key)).toHaveLength(2);
});

test('of rotations that race without a request id one wins, and the others learn that the key has lost its place', async () => {
  await using service = await startServer();
  const { key } = await create(service);
  const rotations = Array.from({ length: 10 }, () => rotate(service, key));
  const answers = await Promise.allSettled(rotations);
  expect(answers.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
  for (const [at, { status }] of answers.entries()) {
    if (status === 'fulfilled') continue;
    const told = await toldBy(rotations[at] ?? Promise.resolve());
    expect(told).toMatchObject({ code: 'FAILED_PRECONDITION', reason: 'KEY_SUPERSEDED' });
  }
});

const fields: Record<string, [Partial<RotateKeyRequest>, reason: string, field?: string]> = {
  'no actor': [{ actor: undefined }, 'ACTOR_REQUIRED', 'actor'],
  'no selector': [{ selector: undefined }, 'SELECTOR_REQUIRED', 'selector'],
  'an unknown key': [{ selector: byName('nobody') }, 'KEY_NOT_FOUND'],
  'another organization’s key': [{ organizationId: 'other' }, 'KEY_NOT_FOUND'],
  'another keyspace’s key': [{ keyspace: 'shop' }, 'KEY_NOT_FOUND'],
  'a request id with a space': [{ requestId: 'a b' }, 'REQUEST_ID_INVALID', 'request_id'],
  'a negative overlap': [{ overlap: seconds(-1) }, 'OVERLAP_INVALID', 'overlap'],
  'an overlap of negative nanos': [{ overlap: { seconds: 0n, nanos: -1 } }, 'OVERLAP_INVALID', 'overlap'],
  'an overlap of a nanosecond, which is not 0': [{ overlap: { seconds: 0n, nanos: 1 } }, 'OVERLAP_INVALID', 'overlap'],
  'an overlap at the end of numbers': [
    { overlap: { seconds: 2n ** 63n - 1n, nanos: 0 } },
    'OVERLAP_INVALID',
    'overlap',
  ],
  'an overlap beyond the keyspace’s': [{ overlap: seconds(61) }, 'OVERLAP_INVALID', 'overlap'],
  'an expiry in the past': [
    { expiration: { $case: 'expireTime', value: seconds(1) } },
    'EXPIRATION_INVALID',
    'expire_time',
  ],
  'a lifetime beyond the keyspace’s': [
    { expiration: { $case: 'ttl', value: seconds(3601) } },
    'EXPIRATION_INVALID',
    'ttl',
  ],
};

test('a rotation at fault is refused with its reason, and nothing changes', async () => {
  await using service = await startServer();
  const { key, credential } = await create(service, { keyspace: 'brief' });
  for (const [what, [given, reason, field]] of Object.entries(fields)) {
    const told = await toldBy(rotate(service, key, given));
    expect(told, what).toMatchObject({ reason, ...(field !== undefined && { fields: [field] }) });
  }
  expect(await get(service, key)).toEqual(key);
  expect(await expectWhole(service.store, key)).toHaveLength(1);
  expect(await decide(service, credential)).toBe(Decision.VALID);
});

test('a revoked, an expired and a superseded key are not rotated, nor is any of a suspended organization', async () => {
  await using service = await startServer();
  const tiered = { keyspace: 'tiered' };
  const { key: revokedKey } = await create(service, tiered);
  await revoke(service, revokedKey);
  const { key: expired } = await create(service, { ...tiered, expiration: { $case: 'ttl', value: seconds(1) } });
  service.time.offsetMs = 1000;
  await call((done) => service.organizations.updateOrganization(toUpdateOrganization({ plan: 'large' }), done));
  const { key: superseded } = await create(service, tiered);
  const { key: current } = await rotate(service, superseded);
  const refusals: [key: Key, reason: string][] = [
    [revokedKey, 'KEY_REVOKED'],
    [expired, 'KEY_EXPIRED'],
    [superseded, 'KEY_SUPERSEDED'],
  ];
  const before = await expectWhole(service.store, current);
  for (const [key, reason] of refusals) {
    for (const overlap of [undefined, NO_OVERLAP, seconds(5)]) {
      const told = await toldBy(rotate(service, key, { overlap }));
      expect(told).toMatchObject({ code: 'FAILED_PRECONDITION', reason });
    }
  }
  expect(await expectWhole(service.store, current)).toEqual(before);
  await call((done) => service.organizations.updateOrganization(toUpdateOrganization({ suspended: true }), done));
  expect(await toldBy(rotate(service, current))).toMatchObject({ reason: 'ORGANIZATION_SUSPENDED' });
});

test('while the audit is too far behind, only a rotation with overlap 0 goes on, and repeats are answered', async () => {
  let backlogged = false;
  await using service = await startServer({ backlogExceeded: () => backlogged });
  const { key } = await create(service);
  const { key: next } = await rotate(service, key, { requestId: 'r1' });
  backlogged = true;
  for (const overlap of [undefined, seconds(60)]) {
    const told = await toldBy(rotate(service, next, { overlap }));
    expect(told).toMatchObject({ code: 'UNAVAILABLE', reason: 'AUDIT_BACKLOG', retrySeconds: 10 });
  }
  expect(await rotate(service, key, { requestId: 'r1' })).toMatchObject({ replayed: true });
  expect((await rotate(service, next, { overlap: NO_OVERLAP })).previousKey.state).toBe(KeyState.REVOKED);
});

async function rotate(service: TestServer, key: Key, given: Partial<RotateKeyRequest> = {}) {
  const answer = await call<RotateKeyResponse>((done) => service.keys.rotateKey(toRotate(key, given), done));
  const { key: next, previousKey } = answer;
  if (!next || !previousKey) throw new Error('a rotation was answered without its keys');
  return { ...answer, key: next, previousKey };
}

function revoke(service: TestServer, ...request: Parameters<typeof toRevoke>): Promise<RevokeKeyResponse> {
  return call((done) => service.keys.revokeKey(toRevoke(...request), done));
}

async function get(service: TestServer, { keyspace, organizationId, keyId }: Key) {
  const selector: KeySelector = { selector: { $case: 'keyId', value: keyId } };
  const { key } = await call<GetKeyResponse>((done) =>
    service.keys.getKey({ keyspace, organizationId, selector }, done),
  );
  return key;
}

async function decide(service: TestServer, credential: Credential | undefined): Promise<Decision> {
  const request = { ...VerifyKeyRequest.fromPartial({}), credential };
  return (await call<VerifyKeyResponse>((done) => service.keys.verifyKey(request, done))).decision;
}

async function typesOf(service: TestServer, organization = { keyspace: 'shop', organizationId: 'acme' }) {
  return (await expectWhole(service.store, organization)).map(({ type }) => type);
}

function secretOf(credential: Credential | undefined): unknown {
  return credential?.kind?.value;
}

function toMs(time: { seconds: bigint; nanos: number } | undefined): number {
  if (!time) throw new Error('no time');
  return Number(time.seconds) * 1000 + time.nanos / 1_000_000;
}
