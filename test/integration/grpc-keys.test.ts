/** Creating, getting and revoking, as clients see it: races, repeats, and what a key looks like. */
import { randomUUID } from 'node:crypto';
import type { Metadata } from '@grpc/grpc-js';
import { expect, test } from 'vitest';

import { ActorType } from '../../src/gen/keyreeve/v1/actor.js';
import { type KeySelector, KeyState, RevocationReason } from '../../src/gen/keyreeve/v1/key.js';
import {
  type CreateKeyResponse,
  type GetKeyResponse,
  type RevokeKeyResponse,
} from '../../src/gen/keyreeve/v1/key_service.js';
import { StoreFault } from '../../src/store/faults.js';
import { breakable, type Breakage } from '../support/breakable-store.js';
import { call } from '../support/call.js';
import {
  ADA,
  create,
  letIn,
  startServer,
  type TestServer,
  toCreate,
  toldBy,
  toRevoke,
} from '../support/grpc-server.js';
import { expectWhole } from '../support/expect-whole.js';
import { organizationsOf } from '../support/store-calls.js';

const acme = { keyspace: 'shop', organizationId: 'acme' };

const createKey = (service: TestServer, fields: Parameters<typeof toCreate>[0]) =>
  call<CreateKeyResponse>((done) => service.keys.createKey(toCreate(fields), done));
const revokeKey = (service: TestServer, ...request: Parameters<typeof toRevoke>) =>
  call<RevokeKeyResponse>((done) => service.keys.revokeKey(toRevoke(...request), done));
const getKey = (service: TestServer, selector: NonNullable<KeySelector['selector']>, organization = acme) =>
  call<GetKeyResponse>((done) => service.keys.getKey({ ...organization, selector: { selector } }, done));
const seconds = (date: Date) => BigInt(Math.floor(date.getTime() / 1000));

test('a created key is answered whole, and got by its id and its name as it was answered', async () => {
  await using service = await startServer();
  const { key, credential } = await create(service, {
    keyspace: 'named',
    name: '  Cafe\u0301  ',
    scopes: ['write', 'read', 'write'],
    labels: new Map([['env', 'prod']]),
    expiration: { $case: 'ttl', value: { seconds: 90n, nanos: 1_999_999 } },
  });
  expect(key).toMatchObject({
    keyspace: 'named',
    organizationId: 'acme',
    name: 'Café',
    type: 'GENERIC',
    state: KeyState.ACTIVE,
    disabled: false,
    createdBy: { type: ActorType.USER, id: 'ada', permissions: [] },
    scopes: ['read', 'write'],
    labels: new Map([['env', 'prod']]),
    lineageId: key.keyId,
    publicId: key.keyId.replace('key_', 'named.'),
    clientId: '',
    revocationReason: RevocationReason.UNSPECIFIED,
  });
  expect([key.revokeTime, key.revokedBy, key.lastUseTime]).toEqual([undefined, undefined, undefined]);
  const lifeMs = toMs(key.expireTime) - toMs(key.createTime);
  expect(lifeMs).toBe(90_001);
  if (credential.kind?.$case !== 'bearerToken') throw new Error('no bearer token');
  expect(credential.kind.value.slice(0, 10)).toBe(key.display.slice(0, 10));
  for (const selector of [
    { $case: 'keyId', value: key.keyId },
    { $case: 'name', value: 'Cafe\u0301 ' },
  ] as const) {
    expect((await getKey(service, selector, { ...acme, keyspace: 'named' })).key).toEqual(key);
  }
});

test('a pair key discloses its client id and secret, and is got by its client id', async () => {
  await using service = await startServer();
  const { key, credential } = await create(service, { keyspace: 'pair' });
  expect(credential.kind).toMatchObject({ $case: 'client', value: { clientId: key.clientId } });
  expect(key.clientId).toMatch(/^client_/);
  const got = await getKey(service, { $case: 'clientId', value: key.clientId }, { ...acme, keyspace: 'pair' });
  expect(got.key).toEqual(key);
});

test('labels may have any name of the form, also those of the service’s own words', async () => {
  await using service = await startServer();
  for (const labels of [
    new Map([['refused', 'x']]),
    new Map([['refused', 'LABELS_INVALID']]),
    new Map([
      ['refused', 'NAME_TAKEN'],
      ['field', 'labels'],
      ['message', 'no'],
    ]),
    new Map([['constructor', 'x']]),
  ]) {
    expect((await create(service, { labels })).key.labels).toEqual(labels);
  }
});

test('an expired key says so by the clock, and makes no event', async () => {
  await using service = await startServer();
  const { key } = await create(service, { expiration: { $case: 'ttl', value: { seconds: 60n, nanos: 0 } } });
  service.time.offsetMs = 60_000;
  expect((await getKey(service, { $case: 'keyId', value: key.keyId })).key?.state).toBe(KeyState.EXPIRED);
  expect(await expectWhole(service.store, acme)).toHaveLength(1);
});

test('of callers that race for the last place exactly one wins, and the others learn limit, plan and what is expired', async () => {
  await using service = await startServer();
  const limited = { keyspace: 'limited' };
  await create(service, { ...limited, expiration: { $case: 'ttl', value: { seconds: 1n, nanos: 0 } } });
  await create(service, limited);
  service.time.offsetMs = 1000;
  const racers = Array.from({ length: 20 }, () => createKey(service, limited));
  const answers = await Promise.allSettled(racers);
  expect(answers.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
  const loser = racers.find((_, at) => answers[at]?.status === 'rejected');
  expect(await toldBy(Promise.resolve(loser))).toEqual({
    code: 'RESOURCE_EXHAUSTED',
    reason: 'KEY_LIMIT_REACHED',
    domain: 'keyreeve',
    metadata: { limit: '3', plan: 'free', expired: '1' },
    quota: ['plan:free'],
  });
  expect(await expectWhole(service.store, { ...acme, ...limited })).toHaveLength(3);
});

test('a limit that is reached is told also while the expired keys cannot be counted', async () => {
  const breakage: Breakage = {};
  await using service = await startServer({ wrap: (store) => breakable(store, breakage) });
  for (let n = 0; n < 3; n += 1) await create(service, { keyspace: 'limited' });
  breakage.before = (name) =>
    name === 'countExpired' ? Promise.reject(new StoreFault('unavailable', 'away')) : Promise.resolve();
  const told = await toldBy(createKey(service, { keyspace: 'limited' }));
  expect(told).toMatchObject({ reason: 'KEY_LIMIT_REACHED', metadata: { limit: '3', plan: 'free' } });
  expect(told.metadata).not.toHaveProperty('expired');
});

test('of callers that race for a name exactly one wins, and revoking its key sets the name free', async () => {
  await using service = await startServer();
  const named = { keyspace: 'named', name: 'deploy' };
  const answers = await Promise.allSettled(Array.from({ length: 20 }, () => createKey(service, named)));
  const winners = answers.flatMap((answer) => (answer.status === 'fulfilled' ? [answer.value] : []));
  expect(winners).toHaveLength(1);
  expect(await toldBy(createKey(service, named))).toMatchObject({ code: 'ALREADY_EXISTS', reason: 'NAME_TAKEN' });
  const key = winners[0]?.key;
  if (!key) throw new Error('no key');
  await revokeKey(service, key);
  await create(service, named);
});

test('a repeat under the same request id answers the same key without credential, also after a restart and its expiry', async () => {
  await using service = await startServer();
  const fields = {
    requestId: randomUUID(),
    name: ' ci',
    scopes: ['b', 'a'],
    expiration: { $case: 'ttl', value: { seconds: 60n, nanos: 0 } } as const,
  };
  const first = await create(service, fields);
  // In normal form it is the same request, and permissions are not part of it.
  const again = { ...fields, name: 'ci ', scopes: ['a', 'b', 'a'], actor: { ...ADA, permissions: [] } };
  const repeat = { key: first.key, credential: undefined, replayed: true };
  expect(await createKey(service, again)).toEqual(repeat);
  await service.restart();
  service.time.offsetMs = 3_600_000;
  expect(await createKey(service, again)).toEqual({ ...repeat, key: { ...first.key, state: KeyState.EXPIRED } });
  await revokeKey(service, first.key, {});
  expect((await createKey(service, again)).key?.state).toBe(KeyState.REVOKED);
  expect(await expectWhole(service.store, acme)).toHaveLength(2);
});

test('a repeat whose absolute expiry has passed is still a repeat', async () => {
  await using service = await startServer();
  const value = { seconds: seconds(new Date()) + 60n, nanos: 0 };
  const fields = { requestId: randomUUID(), expiration: { $case: 'expireTime', value } } as const;
  const { key } = await create(service, fields);
  service.time.offsetMs = 120_000;
  expect(await createKey(service, fields)).toMatchObject({ key: { keyId: key.keyId }, replayed: true });
});

test('another request under the same request id is refused, whatever differs', async () => {
  await using service = await startServer();
  const requestId = randomUUID();
  await create(service, { requestId });
  for (const fields of [
    { name: 'other' },
    { scopes: ['a'] },
    { labels: new Map([['a', 'b']]) },
    { expiration: { $case: 'ttl', value: { seconds: 60n, nanos: 0 } } as const },
    { actor: { ...ADA, id: 'bob' } },
    { actor: { ...ADA, type: ActorType.SERVICE } },
  ]) {
    const told = await toldBy(createKey(service, { requestId, ...fields }));
    expect(told).toMatchObject({ code: 'FAILED_PRECONDITION', reason: 'REQUEST_ID_REUSED' });
  }
  expect(await expectWhole(service.store, acme)).toHaveLength(1);
});

test('a request id holds within its organization, its method and its caller', async () => {
  const { callers, as } = letIn({ first: { roles: ['provisioner'] }, second: { roles: ['provisioner'] } });
  await using service = await startServer({ callers });
  const requestId = randomUUID();
  const by = (metadata: Metadata, fields: object = {}) =>
    call<CreateKeyResponse>((done) =>
      service.keys.createKey(toCreate({ requestId, actor: undefined, ...fields }), metadata, done),
    );
  const one = await by(as.first);
  const two = await by(as.second);
  const elsewhere = await by(as.first, { organizationId: 'other' });
  expect([one, two, elsewhere].map(({ replayed }) => replayed)).toEqual([false, false, false]);
  expect(one.key?.createdBy).toEqual({ type: ActorType.SERVICE, id: 'first', permissions: [] });
  if (!one.key) throw new Error('no key');
  const request = toRevoke(one.key, { requestId, actor: undefined });
  const revoked = await call<RevokeKeyResponse>((done) => service.keys.revokeKey(request, as.first, done));
  expect(revoked.key?.state).toBe(KeyState.REVOKED);
});

test('a refused request is not remembered: its id can be used again', async () => {
  await using service = await startServer();
  const requestId = randomUUID();
  expect(await toldBy(createKey(service, { requestId, keyspace: 'named', type: 'AZURE' }))).toMatchObject({
    reason: 'TYPE_INVALID',
  });
  await create(service, { requestId, keyspace: 'named' });
});

test('retries that race under one request id make one key, and one of them gets the credential', async () => {
  await using service = await startServer();
  const requestId = randomUUID();
  const answers = await Promise.all(Array.from({ length: 10 }, () => createKey(service, { requestId })));
  expect(new Set(answers.map(({ key }) => key?.keyId)).size).toBe(1);
  expect(answers.filter(({ credential }) => credential !== undefined)).toHaveLength(1);
  expect(answers.filter(({ replayed }) => !replayed)).toHaveLength(1);
});

test('revoking twice answers the first time, reason and actor, and makes one event', async () => {
  await using service = await startServer();
  const { key } = await create(service);
  const first = await revokeKey(service, key, {
    reason: RevocationReason.COMPROMISED,
    reasonDetail: ' found in a log ',
  });
  expect(first.key).toMatchObject({
    state: KeyState.REVOKED,
    revokedBy: { type: ActorType.USER, id: 'ada' },
    revocationReason: RevocationReason.COMPROMISED,
    reasonDetail: 'found in a log',
  });
  service.time.offsetMs = 5000;
  const second = await revokeKey(service, key, {
    reason: RevocationReason.UNUSED,
    actor: { ...ADA, id: 'bob' },
  });
  expect(second.key).toEqual(first.key);
  expect((await expectWhole(service.store, acme)).map(({ type }) => type)).toEqual(['key.created', 'key.revoked']);
});

test('a revocation is enforced when it is answered, and says until when callers may keep older answers', async () => {
  await using service = await startServer();
  const { key } = await create(service);
  const { enforcement } = await revokeKey(service, key);
  expect(enforcement).toMatchObject({ complete: true, completeByTime: undefined });
  const before = toMs(enforcement?.cachesClearTime);
  expect(before - Date.now()).toBeGreaterThan(0);
  expect(before - Date.now()).toBeLessThanOrEqual(5000);
  // Under a rate limit nobody may keep an answer, whatever the keyspace says.
  const { key: rated } = await create(service, { keyspace: 'rated' });
  expect(toMs((await revokeKey(service, rated)).enforcement?.cachesClearTime)).toBeLessThanOrEqual(Date.now());
});

test('a repeated revocation by name does not take the key that has the name by now', async () => {
  await using service = await startServer();
  const first = await create(service, { keyspace: 'named', name: 'deploy' });
  const selector: KeySelector = { selector: { $case: 'name', value: 'deploy' } };
  const requestId = randomUUID();
  await revokeKey(service, first.key, { selector, requestId });
  const second = await create(service, { keyspace: 'named', name: 'deploy' });
  const repeat = await revokeKey(service, first.key, { selector, requestId });
  expect(repeat.key?.keyId).toBe(first.key.keyId);
  const organization = { keyspace: 'named', organizationId: 'acme' };
  const { key } = await getKey(service, { $case: 'keyId', value: second.key.keyId }, organization);
  expect(key?.state).toBe(KeyState.ACTIVE);
  const told = await toldBy(revokeKey(service, first.key, { requestId }));
  expect(told).toMatchObject({ reason: 'REQUEST_ID_REUSED' });
});

test('a name that several keys have is refused as ambiguous', async () => {
  await using service = await startServer();
  const { key } = await create(service, { name: 'same' });
  await create(service, { name: 'same' });
  const selector: KeySelector = { selector: { $case: 'name', value: 'same' } };
  const told = await toldBy(revokeKey(service, key, { selector }));
  expect(told).toMatchObject({ code: 'FAILED_PRECONDITION', reason: 'NAME_AMBIGUOUS' });
});

test('a reason that is not stated, or that a newer client knows, counts as OTHER', async () => {
  await using service = await startServer();
  for (const reason of [RevocationReason.UNSPECIFIED, RevocationReason.UNRECOGNIZED]) {
    const { key } = await create(service);
    expect((await revokeKey(service, key, { reason })).key?.revocationReason).toBe(RevocationReason.OTHER);
  }
});

test('while the audit is too far behind, creating is refused, and repeats and revoking go on', async () => {
  let backlogged = false;
  await using service = await startServer({ backlogExceeded: () => backlogged });
  const requestId = randomUUID();
  const { key } = await create(service, { requestId });
  backlogged = true;
  const told = await toldBy(createKey(service, {}));
  expect(told).toMatchObject({ code: 'UNAVAILABLE', reason: 'AUDIT_BACKLOG', retrySeconds: 10 });
  expect(await createKey(service, { requestId })).toMatchObject({ replayed: true });
  expect((await revokeKey(service, key)).key?.state).toBe(KeyState.REVOKED);
  expect(await organizationsOf(service.store)).toMatchObject([{ keyCount: 0, sequence: 2 }]);
});

function toMs(time: { seconds: bigint; nanos: number } | undefined): number {
  if (!time) throw new Error('no time');
  return Number(time.seconds) * 1000 + time.nanos / 1_000_000;
}
