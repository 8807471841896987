/** The log of the calls: one line each, and no secret in any, wherever a caller puts it. */
import type { Metadata } from '@grpc/grpc-js';
import { expect, test } from 'vitest';

import type { Credential } from '../../src/gen/keyreeve/v1/credential.js';
import { GetKeyRequest, ListKeysRequest, VerifyKeyRequest } from '../../src/gen/keyreeve/v1/key_service.js';
import { breakable, type Breakage } from '../support/breakable-store.js';
import { call } from '../support/call.js';
import {
  create,
  startServer,
  toCreate,
  toImport,
  toRevoke,
  toRotate,
  toUpdate,
  toUpdateOrganization,
  withToken,
} from '../support/grpc-server.js';

interface Line {
  call: string;
  reason?: string;
  decision?: string;
}

test('each call makes one line, that of a verification at debug', async () => {
  await using service = await startServer();
  const { key, credential } = await create(service);
  await call((done) => service.keys.verifyKey({ ...VerifyKeyRequest.fromPartial({}), credential }, done));
  await call((done) => service.keys.verifyKey({ ...VerifyKeyRequest.fromPartial({}) }, done));
  await call((done) => service.keys.updateKey(toUpdate(key, { name: 'build' }), done));
  await call((done) => service.keys.rotateKey(toRotate(key), done));
  await call((done) => service.keys.revokeKey(toRevoke(key), done));
  const items = [{ secret: { $case: 'digest' as const, value: Buffer.alloc(32, 1) }, name: 'old' }, { name: 'none' }];
  await call((done) => service.keys.importKeys(toImport(items), done));
  const organization = { keyspace: 'tiered', organizationId: 'acme' };
  await call((done) => service.organizations.getOrganization(organization, done));
  await call((done) => service.organizations.updateOrganization(toUpdateOrganization({ suspended: true }), done));
  await call((done) => service.keys.createKey(toCreate({ keyspace: 'nowhere' }), done)).catch(() => undefined);
  const lines = service.logged.map((line) => JSON.parse(line) as Line);
  const about = { caller: 'local', keyspace: 'shop', key_id: key.keyId };
  expect(lines).toMatchObject([
    { level: 'info', call: 'CreateKey', ...about },
    { level: 'debug', call: 'VerifyKey', ...about, decision: 'VALID' },
    { level: 'debug', call: 'VerifyKey', caller: 'local', decision: 'MALFORMED' },
    { level: 'info', call: 'UpdateKey', ...about },
    { level: 'info', call: 'RotateKey', caller: 'local', keyspace: 'shop' },
    { level: 'info', call: 'RevokeKey', ...about },
    { level: 'info', call: 'ImportKeys', caller: 'local', keyspace: 'shop' },
    { level: 'info', call: 'GetOrganization', caller: 'local', keyspace: 'tiered' },
    { level: 'info', call: 'UpdateOrganization', caller: 'local', keyspace: 'tiered' },
    { level: 'info', call: 'CreateKey', caller: 'local', reason: 'KEYSPACE_NOT_FOUND' },
  ]);
  expect(lines.at(-1)).not.toHaveProperty('keyspace');
});

test('no line holds a credential, or a half of one, wherever it was put and whatever broke', async () => {
  const breakage: Breakage = {};
  await using service = await startServer({ wrap: (store) => breakable(store, breakage) });
  const { keys } = service;
  const secrets: string[] = [];
  for (const keyspace of ['shop', 'pair']) {
    const { key, credential } = await create(service, { keyspace });
    const secret = secretOf(credential);
    secrets.push(secret, secret.slice(0, secret.length / 2), secret.slice(secret.length / 2));
    const there = { keyspace, organizationId: 'acme' };
    const misplaced: ((as: Metadata) => Promise<unknown>)[] = [
      ...presentations(credential, key.clientId).map((presented) => (as: Metadata) => {
        const request = { ...VerifyKeyRequest.fromPartial({}), ...there, credential: presented };
        return call((done) => keys.verifyKey(request, as, done));
      }),
      ...[
        { keyspace: secret },
        { organizationId: secret },
        { organizationId: `${secret}/` },
        { requestId: `${secret} ` },
        { type: secret },
        { scopes: [`${secret} `] },
        { labels: new Map([[secret, secret]]) },
        { actor: { type: 1, id: `${secret}\u0000`, permissions: [secret] } },
      ].map((fields) => (as: Metadata) => call((done) => keys.createKey(toCreate({ ...there, ...fields }), as, done))),
      ...(['keyId', 'name', 'clientId'] as const).map(($case) => (as: Metadata) => {
        const selector = { selector: { $case, value: secret } };
        return call((done) => keys.getKey({ ...GetKeyRequest.fromPartial({}), ...there, selector }, as, done));
      }),
      ...[{ updateMask: [secret] }, { etag: secret }, { requestId: `${secret} ` }].map((fields) => (as: Metadata) => {
        return call((done) => keys.updateKey(toUpdate(key, { name: `${secret}\u0000` }, fields), as, done));
      }),
      (as) => call((done) => keys.rotateKey(toRotate(key, { requestId: `${secret} ` }), as, done)),
      (as) => {
        const selector = { selector: { $case: 'clientId' as const, value: secret } };
        return call((done) => keys.rotateKey(toRotate(key, { selector }), as, done));
      },
      (as) => {
        const digest = { $case: 'digest' as const, value: Buffer.from(secret) };
        const shown = { $case: 'digest' as const, value: Buffer.alloc(32, 2) };
        const items = [
          { secret: digest },
          { secret: shown, display: `${secret}\u0000`, clientId: secret },
          ...presentations(credential, key.clientId).map((value) => ({
            secret: { $case: 'credential' as const, value },
          })),
        ];
        return call((done) => keys.importKeys(toImport(items, there), as, done));
      },
      (as) => {
        const request = toUpdateOrganization({ plan: secret }, { ...there, etag: secret });
        return call((done) => service.organizations.updateOrganization(request, as, done));
      },
      (as) => call((done) => keys.revokeKey(toRevoke(key, { reasonDetail: `${secret}\u0000` }), as, done)),
      (as) =>
        call((done) =>
          keys.listKeys({ ...ListKeysRequest.fromPartial({}), ...there, pageToken: secret, types: [secret] }, as, done),
        ),
    ];
    for (const before of [undefined, () => Promise.reject(new Error('broken'))]) {
      if (before) breakage.before = before;
      else delete breakage.before;
      // Refused or not: what counts is what is written about it.
      for (const make of misplaced) await make(withToken(secret)).catch(() => undefined);
    }
    delete breakage.before;
  }
  const written = service.logged.join('');
  expect(service.logged.length).toBeGreaterThan(60);
  for (const secret of secrets) expect(written.includes(secret)).toBe(false);
});

function secretOf({ kind }: Credential): string {
  return kind?.$case === 'client' ? kind.value.secret : (kind?.value ?? '');
}

/** The credential, right, halved and under the other kind. */
function presentations(credential: Credential, clientId: string): Credential[] {
  const secret = secretOf(credential);
  const bearer = (value: string): Credential => ({ kind: { $case: 'bearerToken', value } });
  return [
    credential,
    bearer(secret),
    bearer(secret.slice(0, -1)),
    bearer(`${secret}x`),
    { kind: { $case: 'client', value: { clientId, secret: secret.slice(1) } } },
    { kind: { $case: 'client', value: { clientId: secret, secret } } },
  ];
}
