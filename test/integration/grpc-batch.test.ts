/** Several verifications in one call. */
import { Metadata } from '@grpc/grpc-js';
import { expect, test } from 'vitest';

import type { Credential } from '../../src/gen/keyreeve/v1/credential.js';
import {
  BatchVerifyKeysRequest,
  type BatchVerifyKeysResponse,
  type BatchVerifyKeysResult,
  type CreateKeyResponse,
  VerifyKeyRequest,
  type VerifyKeyResponse,
} from '../../src/gen/keyreeve/v1/key_service.js';
import { Decision } from '../../src/gen/keyreeve/v1/verification.js';
import { StoreFault } from '../../src/store/faults.js';
import { breakable, type Breakage } from '../support/breakable-store.js';
import { call } from '../support/call.js';
import { create, letIn, startServer, type TestServer, toCreate, toldBy, toRevoke } from '../support/grpc-server.js';

const bearer = (value: string): Credential => ({ kind: { $case: 'bearerToken', value } });

async function batch(
  { keys }: TestServer,
  requests: Partial<VerifyKeyRequest>[],
  as = new Metadata(),
): Promise<readonly BatchVerifyKeysResult[]> {
  const request = BatchVerifyKeysRequest.fromPartial({ requests: requests.map((one) => VerifyKeyRequest.create(one)) });
  return (await call<BatchVerifyKeysResponse>((done) => keys.batchVerifyKeys(request, as, done))).results;
}

function decisionsOf(results: readonly BatchVerifyKeysResult[]): string[] {
  return results.map(({ result }) =>
    result?.$case === 'response' ? Decision[result.value.decision] : (result?.value.reason ?? 'nothing'),
  );
}

test('each item is answered as VerifyKey answers it, in order', async () => {
  await using service = await startServer();
  const valid = await create(service, { scopes: ['a'] });
  const revoked = await create(service);
  await call((done) => service.keys.revokeKey(toRevoke(revoked.key), done));
  const requests: Partial<VerifyKeyRequest>[] = [
    { credential: valid.credential },
    { credential: revoked.credential },
    { credential: bearer('noise') },
    { credential: valid.credential, organizationId: 'other' },
    { credential: valid.credential, requiredScopes: ['b'] },
    { credential: valid.credential, keyspace: 'shop', requiredScopes: ['a'] },
    {},
  ];
  const results = await batch(service, requests);
  expect(decisionsOf(results)).toEqual([
    'VALID',
    'REVOKED',
    'MALFORMED',
    'WRONG_ORGANIZATION',
    'INSUFFICIENT_SCOPE',
    'VALID',
    'MALFORMED',
  ]);
  for (const [at, request] of requests.entries()) {
    const alone = await call<VerifyKeyResponse>((done) =>
      service.keys.verifyKey(VerifyKeyRequest.create(request), done),
    );
    expect(results[at]?.result?.value).toEqual(alone);
  }
});

test('an item that cannot be carried out fails alone, with its reason and field', async () => {
  const breakage: Breakage = {};
  await using service = await startServer({ wrap: (store) => breakable(store, breakage) });
  const { credential } = await create(service);
  const other = await create(service);
  await batch(service, [{ credential }]);
  breakage.before = (name) =>
    name === 'findByDigest' ? Promise.reject(new StoreFault('unavailable', 'away')) : Promise.resolve();
  const results = await batch(service, [
    { credential },
    { credential, keyspace: 'nowhere' },
    { credential, requiredScopes: ['not a scope'] },
    { credential, organizationId: 'a b' },
    { credential, requiredScopes: ['\ufffd'] },
    { credential: { kind: { $case: 'client', value: { clientId: 'c', secret: 's' } } } },
    { credential: other.credential },
    { credential },
  ]);
  expect(decisionsOf(results)).toEqual([
    'VALID',
    'KEYSPACE_NOT_FOUND',
    'SCOPES_INVALID',
    'ORGANIZATION_ID_INVALID',
    'TEXT_INVALID',
    'KEYSPACE_REQUIRED',
    'STORE_UNAVAILABLE',
    'VALID',
  ]);
  expect(results[2]?.result?.value).toMatchObject({ code: 3, field: 'required_scopes[0]' });
  expect(results[6]?.result?.value).toMatchObject({ code: 14, field: '' });
  expect(service.logged.join('')).not.toContain('not a scope');
});

test('of a key asked for several times each counts against its limit', async () => {
  await using service = await startServer();
  const { credential } = await create(service, { keyspace: 'rated' });
  const results = await batch(service, Array<Partial<VerifyKeyRequest>>(70).fill({ credential }));
  const decisions = decisionsOf(results);
  expect(decisions.filter((decision) => decision === 'VALID')).toHaveLength(60);
  expect(decisions.filter((decision) => decision === 'RATE_LIMITED')).toHaveLength(10);
});

test('what a batch asks for several times is read once, and what is known not at all', async () => {
  const reads: string[] = [];
  const breakage: Breakage = {};
  await using service = await startServer({ wrap: (store) => breakable(store, breakage) });
  const { credential } = await create(service);
  breakage.before = (name) => {
    reads.push(name);
    return Promise.resolve();
  };
  const requests = Array<Partial<VerifyKeyRequest>>(100).fill({ credential });
  expect(new Set(decisionsOf(await batch(service, requests)))).toEqual(new Set(['VALID']));
  expect(reads.filter((name) => name === 'findByDigest')).toHaveLength(1);
  await batch(service, requests);
  expect(reads.filter((name) => name === 'findByDigest')).toHaveLength(1);
});

test('only a verifier may send one, and each item is judged by what its policy covers', async () => {
  const { callers, as } = letIn({
    gateway: { roles: ['verifier'], keyspaces: ['shop'], organizations: ['acme'] },
    provisioner: { roles: ['provisioner'], mayAssertActor: true },
  });
  await using service = await startServer({ callers });
  const issue = (organizationId: string) =>
    call<CreateKeyResponse>((done) => service.keys.createKey(toCreate({ organizationId }), as.provisioner, done));
  const [ours, theirs] = [await issue('acme'), await issue('other')];
  const requests = [{ credential: ours.credential }, { credential: theirs.credential }, { keyspace: 'limited' }];
  expect(decisionsOf(await batch(service, requests, as.gateway))).toEqual(['VALID', 'NOT_FOUND', 'KEYSPACE_NOT_FOUND']);
  expect(await toldBy(batch(service, requests, as.provisioner))).toMatchObject({ reason: 'CALLER_NOT_ALLOWED' });
});

test('100 items are taken, 101 refused whole, and none is nothing', async () => {
  await using service = await startServer();
  expect(await batch(service, [])).toEqual([]);
  expect(await batch(service, Array<object>(100).fill({}))).toHaveLength(100);
  expect(await toldBy(batch(service, Array<object>(101).fill({})))).toMatchObject({
    code: 'INVALID_ARGUMENT',
    reason: 'TOO_MANY_ITEMS',
    fields: ['requests'],
  });
});
