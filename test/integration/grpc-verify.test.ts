/** Verifying: every decision, and what goes with it. */
import { afterAll, beforeAll, expect, test } from 'vitest';

import type { Credential } from '../../src/gen/keyreeve/v1/credential.js';
import type { Key } from '../../src/gen/keyreeve/v1/key.js';
import { VerifyKeyRequest, type VerifyKeyResponse } from '../../src/gen/keyreeve/v1/key_service.js';
import { Decision } from '../../src/gen/keyreeve/v1/verification.js';
import { call } from '../support/call.js';
import { create, startServer, type TestServer, toRevoke, toUpdate } from '../support/grpc-server.js';

let service: TestServer;
beforeAll(async () => {
  service = await startServer();
});
afterAll(() => service[Symbol.asyncDispose]());

const verify = (credential: Credential | undefined, fields: Partial<VerifyKeyRequest> = {}) =>
  call<VerifyKeyResponse>((done) =>
    service.keys.verifyKey({ ...VerifyKeyRequest.fromPartial({}), credential, ...fields }, done),
  );
const bearer = (value: string): Credential => ({ kind: { $case: 'bearerToken', value } });
const pair = (clientId: string, secret: string): Credential => ({
  kind: { $case: 'client', value: { clientId, secret } },
});
const bare = (decision: Decision) => ({ decision, key: undefined, rateLimit: undefined, cacheTtl: undefined });

test('a valid credential is answered with its key, as the gateway may use it, and for how long', async () => {
  const { key, credential } = await create(service, {
    name: 'Café ✓',
    scopes: ['read', 'write'],
    labels: new Map([['env', 'prod']]),
  });
  for (const fields of [{}, { keyspace: 'shop' }, { organizationId: 'acme' }, { requiredScopes: ['write', 'read'] }]) {
    expect(await verify(credential, fields)).toEqual({
      decision: Decision.VALID,
      key: {
        keyId: key.keyId,
        publicId: '',
        lineageId: key.keyId,
        keyspace: 'shop',
        organizationId: 'acme',
        name: 'Café ✓',
        type: '',
        scopes: ['read', 'write'],
        labels: new Map([['env', 'prod']]),
        expireTime: undefined,
      },
      rateLimit: undefined,
      cacheTtl: { seconds: 5n, nanos: 0 },
    });
  }
});

test('an answer may be kept no longer than until the key expires, and at its expiry it is denied', async () => {
  await using own = await startServer();
  const ttl = { $case: 'ttl', value: { seconds: 60n, nanos: 0 } } as const;
  // Where an answer may be kept for 10 s.
  const { key, credential } = await create(own, { keyspace: 'tiered', expiration: ttl });
  const verifyThere = () =>
    call<VerifyKeyResponse>((done) => own.keys.verifyKey({ ...VerifyKeyRequest.fromPartial({}), credential }, done));
  own.time.offsetMs = 51_000;
  const { decision, cacheTtl } = await verifyThere();
  expect(decision).toBe(Decision.VALID);
  const keptMs = Number(cacheTtl?.seconds) * 1000 + Number(cacheTtl?.nanos) / 1e6;
  expect(keptMs).toBeGreaterThan(0);
  expect(keptMs).toBeLessThanOrEqual(9000);
  own.time.offsetMs = 60_000;
  expect(await verifyThere()).toMatchObject({
    decision: Decision.EXPIRED,
    key: { keyId: key.keyId },
    cacheTtl: undefined,
  });
});

test('under a rate limit every answer about a known key tells it, none may be kept, and only VALID counts', async () => {
  const { key, credential } = await create(service, { keyspace: 'rated' });
  const rateLimit = { limit: 60, window: { seconds: 60n, nanos: 0 }, retryAfter: undefined };
  const untouched = { ...rateLimit, remaining: 60, resetTime: undefined };
  const scoped = { requiredScopes: ['a'] };
  expect(await verify(credential, scoped)).toMatchObject({ rateLimit: untouched, cacheTtl: undefined });
  expect(await verify(credential)).toMatchObject({
    decision: Decision.VALID,
    rateLimit: { ...rateLimit, remaining: 59 },
    cacheTtl: { seconds: 0n, nanos: 0 },
  });
  expect(await verify(credential, scoped)).toMatchObject({
    decision: Decision.INSUFFICIENT_SCOPE,
    rateLimit: { ...rateLimit, remaining: 59, resetTime: expect.anything() as unknown },
  });
  expect(await verify(credential, { organizationId: 'other' })).toEqual(bare(Decision.WRONG_ORGANIZATION));
  expect((await verify(credential)).rateLimit?.remaining).toBe(58);
  await call((done) => service.keys.revokeKey(toRevoke(key), done));
  expect(await verify(credential)).toMatchObject({
    decision: Decision.REVOKED,
    rateLimit: { ...rateLimit, remaining: 58 },
    cacheTtl: undefined,
  });
});

test('a revoked key is denied at once, and for good', async () => {
  const { key, credential } = await create(service);
  expect((await verify(credential)).decision).toBe(Decision.VALID);
  await call((done) => service.keys.revokeKey(toRevoke(key), done));
  expect(await verify(credential)).toMatchObject({ decision: Decision.REVOKED, key: { keyId: key.keyId } });
});

test('a disabled key is denied with its key', async () => {
  const { key, credential } = await create(service);
  await disable(key);
  expect(await verify(credential)).toMatchObject({ decision: Decision.DISABLED, key: { keyId: key.keyId } });
});

test('a key of another organization than the one asked for is told from none, without saying whose it is', async () => {
  const { credential } = await create(service);
  expect(await verify(credential, { organizationId: 'other' })).toEqual(bare(Decision.WRONG_ORGANIZATION));
  expect(await verify(credential, { organizationId: 'ACME' })).toEqual(bare(Decision.WRONG_ORGANIZATION));
});

test('scopes are compared whole, and all of them are needed', async () => {
  const { credential } = await create(service, { scopes: ['orders:read', 'orders:*'] });
  expect((await verify(credential, { requiredScopes: ['orders:read'] })).decision).toBe(Decision.VALID);
  for (const requiredScopes of [['orders:write'], ['orders'], ['orders:read', 'orders:write']]) {
    expect((await verify(credential, { requiredScopes })).decision).toBe(Decision.INSUFFICIENT_SCOPE);
  }
});

test('what cannot have been issued is MALFORMED', async () => {
  const { credential } = await create(service);
  const token = credential.kind?.$case === 'bearerToken' ? credential.kind.value : '';
  for (const presented of [
    undefined,
    { kind: undefined },
    bearer(''),
    bearer('x'.repeat(1024)),
    bearer(`shop_${'a'.repeat(49)}`),
    bearer(token.slice(0, -1)),
    bearer(`${token}a`),
    bearer(` ${token}`),
    bearer(`${token}\n`),
    bearer(token.replace('shop_', 'SHOP_')),
    bearer(token.replace('shop_', 'lim_')),
    bearer(token.slice('shop_'.length)),
    bearer(`${token.slice(0, -1)}\ufffd`),
    bearer(`\u0000${token}`),
  ]) {
    expect(await verify(presented)).toEqual(bare(Decision.MALFORMED));
    expect(await verify(presented, { keyspace: 'shop' })).toEqual(bare(Decision.MALFORMED));
  }
  // Another keyspace's token, and one of the wrong kind.
  expect(await verify(credential, { keyspace: 'limited' })).toEqual(bare(Decision.MALFORMED));
  expect(await verify(credential, { keyspace: 'pair' })).toEqual(bare(Decision.MALFORMED));
  expect(await verify(pair('client_x', token), { keyspace: 'shop' })).toEqual(bare(Decision.MALFORMED));
});

test('one character changed, wherever, is never let in', async () => {
  const { credential } = await create(service);
  const token = credential.kind?.$case === 'bearerToken' ? credential.kind.value : '';
  const changed = Array.from(
    token,
    (character, at) => token.slice(0, at) + (character === 'a' ? 'b' : 'a') + token.slice(at + 1),
  );
  const answers = await Promise.all(changed.map((other) => verify(bearer(other))));
  expect(new Set(answers.map(({ decision }) => decision))).toEqual(new Set([Decision.MALFORMED]));
});

test('a credential whose form is right and that was never issued is NOT_FOUND', async () => {
  await using elsewhere = await startServer();
  const { credential } = await create(elsewhere);
  expect(await verify(credential)).toEqual(bare(Decision.NOT_FOUND));
});

test('of a pair both halves are needed, and neither can be guessed alone', async () => {
  const { key, credential } = await create(service, { keyspace: 'pair' });
  const other = await create(service, { keyspace: 'pair' });
  const secret = credential.kind?.$case === 'client' ? credential.kind.value.secret : '';
  const there = { keyspace: 'pair' };
  expect((await verify(credential, there)).decision).toBe(Decision.VALID);
  for (const half of [
    pair(key.clientId, ''),
    pair('', secret),
    pair('', ''),
    pair(other.key.clientId, secret),
    pair(key.clientId.toUpperCase(), secret),
    pair('client', secret),
    pair(key.clientId, `${secret}a`),
    pair(key.clientId, 'x'.repeat(1024)),
    pair(`${key.clientId}\u0000`, secret),
  ]) {
    expect(await verify(half, there)).toEqual(bare(Decision.NOT_FOUND));
  }
  expect(await verify(bearer(secret), there)).toEqual(bare(Decision.MALFORMED));
});

async function disable(key: Key): Promise<void> {
  await call((done) => service.keys.updateKey(toUpdate(key, { disabled: true }), done));
}
