/** Envoy's check as a call of this service: who may make it, what it says where nothing can be decided, and what is logged. */
import { credentials, Metadata } from '@grpc/grpc-js';
import { expect, test } from 'vitest';

import {
  AuthorizationClient,
  CheckRequest,
  type CheckResponse,
} from '../../src/gen/envoy/service/auth/v3/external_auth.js';
import type { Credential } from '../../src/gen/keyreeve/v1/credential.js';
import type { CreateKeyResponse } from '../../src/gen/keyreeve/v1/key_service.js';
import { StoreFault } from '../../src/store/faults.js';
import { breakable, type Breakage } from '../support/breakable-store.js';
import { call } from '../support/call.js';
import { create, letIn, startServer, type TestServer, toCreate, toldBy, toRevoke } from '../support/grpc-server.js';
import { neverIssued, secretOf } from '../support/product.js';

const WEB = { keyspace: 'web' };

/** A request with this credential at a route of the keyspace `web`, unless something else is said of the route. */
async function check(
  { address }: Pick<TestServer, 'address'>,
  token: string,
  { route = WEB, metadata = new Metadata() }: { route?: Record<string, string>; metadata?: Metadata } = {},
): Promise<CheckResponse> {
  const http = { headers: new Map([['authorization', `Bearer ${token}`]]) };
  const contextExtensions = new Map(Object.entries(route));
  const client = new AuthorizationClient(address, credentials.createInsecure());
  try {
    const request = CheckRequest.fromPartial({ attributes: { contextExtensions, request: { http } } });
    return await call<CheckResponse>((done) => client.check(request, metadata, done));
  } finally {
    client.close();
  }
}

/** 200 where it lets in. */
function statusOf({ status, httpResponse }: CheckResponse): number {
  if (httpResponse?.$case === 'okResponse') return status?.code === 0 ? 200 : NaN;
  return status?.code === 0 ? NaN : (httpResponse?.value.status?.code ?? NaN);
}

const tokenOf = ({ credential }: { credential: Credential }) => secretOf(credential);

test('where the store is away, or what broke is unknown, nobody is let in, and nothing of it is told', async () => {
  const breakage: Breakage = {};
  await using service = await startServer({ wrap: (store) => breakable(store, breakage) });
  const token = tokenOf(await create(service, WEB));
  for (const broken of [new StoreFault('unavailable', 'mongodb://inside is away'), new Error('inside')]) {
    breakage.before = () => Promise.reject(broken);
    // The key was never asked for, so that memory does not hold it.
    const response = await check(service, token);
    expect(statusOf(response)).toBe(503);
    expect(response).toMatchObject({
      status: { message: '', details: [] },
      httpResponse: { value: { body: '{"error":"service unavailable"}' } },
    });
    expect(JSON.stringify(response)).not.toContain('inside');
  }
  // The log has it.
  expect(service.logged.join('\n')).toContain('mongodb://inside is away');
  delete breakage.before;
  expect(statusOf(await check(service, token))).toBe(200);
});

test('it is for callers with the role, and shows them what their policy does', async () => {
  const { callers, as } = letIn({
    gateway: { roles: ['verifier'], keyspaces: ['web'], organizations: ['acme'] },
    platform: { roles: ['provisioner', 'auditor'] },
    admin: { roles: ['admin'], mayAssertActor: true },
  });
  await using service = await startServer({ callers });
  const issue = async (organizationId: string) => {
    const request = toCreate({ ...WEB, organizationId });
    const { credential } = await call<CreateKeyResponse>((done) => service.keys.createKey(request, as.admin, done));
    return credential ? secretOf(credential) : '';
  };
  const [acme, other] = [await issue('acme'), await issue('other')];

  expect(statusOf(await check(service, acme, { metadata: as.gateway }))).toBe(200);
  expect(statusOf(await check(service, acme, { metadata: as.admin }))).toBe(200);
  expect(statusOf(await check(service, other, { metadata: as.admin }))).toBe(200);
  expect(statusOf(await check(service, other, { metadata: as.gateway }))).toBe(401);
  const platform = check(service, acme, { metadata: as.platform });
  expect(await toldBy(platform)).toMatchObject({ reason: 'CALLER_NOT_ALLOWED' });
  expect(await toldBy(check(service, acme))).toMatchObject({ reason: 'CALLER_UNKNOWN' });
  const elsewhere = check(service, acme, { route: { keyspace: 'rated' }, metadata: as.gateway });
  expect(await toldBy(elsewhere)).toMatchObject({ reason: 'KEYSPACE_NOT_FOUND' });
});

test('a keyspace without rules for HTTP is a mistake of the configuration, and told as one', async () => {
  await using service = await startServer();
  const token = tokenOf(await create(service));
  expect(await toldBy(check(service, token, { route: { keyspace: 'shop' } }))).toMatchObject({
    code: 'FAILED_PRECONDITION',
    reason: 'HTTP_RULES_MISSING',
  });
});

test('the log has a line at debug, with the decision and without the credential', async () => {
  await using service = await startServer();
  const { key, credential } = await create(service, WEB);
  const token = secretOf(credential);
  await check(service, token);
  await check(service, neverIssued('web_'));
  await check(service, 'a b');
  await call((done) => service.keys.revokeKey(toRevoke(key), done));
  await check(service, token);
  const lines = service.logged.map((line) => JSON.parse(line) as { call?: string });
  const checked = { level: 'debug', call: 'Check', caller: 'local', keyspace: 'web' };
  expect(lines.filter((line) => line.call === 'Check')).toMatchObject([
    { ...checked, decision: 'VALID', key_id: key.keyId },
    { ...checked, decision: 'NOT_FOUND' },
    { ...checked, decision: 'MALFORMED' },
    { ...checked, decision: 'REVOKED', key_id: key.keyId },
  ]);
  expect(service.logged.join('\n')).not.toContain(token.slice('web_'.length));
});
