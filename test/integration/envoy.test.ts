/**
 * Behind a real Envoy, configured as the example is, what only a gateway can show of all products alike: what an attacker
 * sends, what becomes of requests while the service is away, and how a route that is configured wrong is told.
 */
import { credentials } from '@grpc/grpc-js';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { connect as connectHttp2 } from 'node:http2';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { newCallerToken } from '../../src/config/callers.js';
import {
  AuthorizationClient,
  CheckRequest,
  type CheckResponse,
} from '../../src/gen/envoy/service/auth/v3/external_auth.js';
import { type Actor, ActorType } from '../../src/gen/keyreeve/v1/actor.js';
import { Key, RevocationReason } from '../../src/gen/keyreeve/v1/key.js';
import {
  CreateKeyRequest,
  type CreateKeyResponse,
  RevokeKeyRequest,
  UpdateKeyRequest,
} from '../../src/gen/keyreeve/v1/key_service.js';
import { call } from '../support/call.js';
import { startEnvoy } from '../support/envoy.js';
import { freePort } from '../support/free-port.js';
import type { Gateway, HttpResponse } from '../support/gateway.js';
import { toldBy, withToken } from '../support/grpc-server.js';
import { makeGuardedFolder } from '../support/guard.js';
import { neverIssued, secretOf } from '../support/product.js';
import { type Service, startService } from '../support/service.js';
import { unreadableBearers } from '../support/unreadable.js';

let service: Service;
let envoy: Gateway;
beforeAll(async () => {
  service = await startService();
  envoy = await startEnvoy(service.address);
});
afterAll(async () => {
  await envoy[Symbol.asyncDispose]();
  await service[Symbol.asyncDispose]();
});

const PAUSE_MS = 300;
const ADA: Actor = { type: ActorType.USER, id: 'ada', permissions: ['admin', 'api_keys.manage'] };

async function create(keyspace: string, fields: Partial<CreateKeyRequest> = {}) {
  const request = CreateKeyRequest.fromPartial({ keyspace, organizationId: 'acme', actor: ADA, name: 'ci', ...fields });
  const { key, credential } = await call<CreateKeyResponse>((done) => service.keys.createKey(request, done));
  if (!key || !credential) throw new Error('a create was answered without key or credential');
  return { key, secret: secretOf(credential) };
}

/** Those that tell the upstream of the key, and any that could be taken for one. */
function toldUpstream({ received }: HttpResponse): Record<string, string[]> | undefined {
  if (!received) return undefined;
  const told: Record<string, string[]> = {};
  for (const [name, value] of received.headers) if (name.includes('keyreeve')) (told[name] ??= []).push(value);
  return told;
}

const FORGED = [
  'x-keyreeve-organization: victim',
  'X-Keyreeve-Organization: victim',
  'x-keyreeve-key-id: key_forged',
  'x-keyreeve-keyspace: metal',
  'x-keyreeve-scopes: admin',
  'x-keyreeve-key-name: root',
  'x-keyreeve-admin: true',
  'x_keyreeve_scopes: admin',
  'x-keyreeve_scopes: admin',
  'X_KEYREEVE-organization: victim',
  'x.keyreeve.organization: victim',
];

describe('what the upstream is told', () => {
  test('the key, and nothing of the credential', async () => {
    const { key, secret } = await create('hygiara', { name: 'Café ✓, 100%', scopes: ['read', 'orders:write'] });
    const response = await envoy.get('hygiara', [`x-api-key: ${secret}`], '/v1/reviews?page=2');
    expect(response).toMatchObject({ status: 200, received: { method: 'GET', url: '/v1/reviews?page=2' } });
    expect(toldUpstream(response)).toEqual({
      'x-keyreeve-key-id': [key.keyId],
      'x-keyreeve-keyspace': ['hygiara'],
      'x-keyreeve-organization': ['acme'],
      'x-keyreeve-scopes': ['orders:write read'],
      'x-keyreeve-key-name': ['Caf%C3%A9%20%E2%9C%93%2C%20100%25'],
    });
    expect(JSON.stringify(response)).not.toContain(secret);
  });

  // What Envoy strips before the check, and, told not to, what the check strips: either alone must hold.
  describe.each([
    { by: 'the example', change: (example: string) => example },
    { by: 'the check alone', change: withoutStripping },
    { by: 'the check alone, with headers as a list', change: (example: string) => asList(withoutStripping(example)) },
  ])('forged headers are stripped by $by', ({ change }) => {
    let own: Gateway;
    beforeAll(async () => {
      own = await startEnvoy(service.address, change);
    });
    afterAll(() => own[Symbol.asyncDispose]());

    test('of a request that is let in, also where the key has nothing to put there', async () => {
      const { key, secret } = await create('hotmetal', { name: '', scopes: [] });
      const response = await own.get('hotmetal', [`authorization: Bearer ${secret}`, ...FORGED]);
      expect(toldUpstream(response)).toEqual({
        'x-keyreeve-key-id': [key.keyId],
        'x-keyreeve-keyspace': ['hotmetal'],
        'x-keyreeve-organization': ['acme'],
        'x-keyreeve-key-name': ['Untitled%20key'],
      });
    });

    test('also where the client names them as its connection’s own', async () => {
      const { key, secret } = await create('hygiara');
      const connection = 'connection: x-keyreeve-organization, x-keyreeve-key-id';
      const response = await own.get('hygiara', [connection, `x-api-key: ${secret}`, ...FORGED]);
      expect(toldUpstream(response)).toMatchObject({
        'x-keyreeve-key-id': [key.keyId],
        'x-keyreeve-organization': ['acme'],
      });
    });

    test('over HTTP/2', async () => {
      const { key, secret } = await create('hygiara');
      const headers = {
        'x-api-key': secret,
        'x-keyreeve-organization': ['victim', 'victim'],
        'x-keyreeve-scopes': 'admin',
        x_keyreeve_scopes: 'admin',
      };
      const { received } = await getByHttp2(own.ports.hygiara ?? 0, headers);
      expect(received.headers.filter(([name]) => name.includes('keyreeve')).sort()).toEqual([
        ['x-keyreeve-key-id', key.keyId],
        ['x-keyreeve-key-name', 'ci'],
        ['x-keyreeve-keyspace', 'hygiara'],
        ['x-keyreeve-organization', 'acme'],
      ]);
    });
  });

  test('on a route without a check nothing of a client’s, by the example', async () => {
    const open = (example: string) =>
      example.replaceAll(/check_settings: \{ context_extensions: \{ keyspace: \w+ \} \}/g, 'disabled: true');
    await using own = await startEnvoy(service.address, open);
    const response = await own.get('hotmetal', FORGED);
    expect(response.status).toBe(200);
    expect(toldUpstream(response)).toEqual({});
  });
});

/** The example, but for what strips headers before the check. */
function withoutStripping(example: string): string {
  const changed = example.replace('x[^a-z0-9]keyreeve[^a-z0-9].*', 'x-nothing-of-the-sort');
  expect(changed).not.toBe(example);
  return changed;
}

/** The example, but for how Envoy tells of headers: each as it came, and not as a map. */
function asList(example: string): string {
  const changed = example.replace(
    'failure_mode_allow: false',
    'failure_mode_allow: false\n                      encode_raw_headers: true',
  );
  expect(changed).not.toBe(example);
  return changed;
}

describe.each([
  { form: 'as a map', change: (example: string) => example },
  { form: 'as a list', change: asList },
])('a credential that could be meant in two ways is refused, with headers $form', ({ change }) => {
  let own: Gateway;
  let bearer: string;
  let apiKey: string;
  let pair: { clientId: string; secret: string };
  beforeAll(async () => {
    own = await startEnvoy(service.address, change);
    bearer = (await create('metlo', { name: `ci ${Math.random()}` })).secret;
    apiKey = (await create('hygiara')).secret;
    const { key, secret } = await create('metal');
    pair = { clientId: key.clientId, secret };
  });
  afterAll(() => own[Symbol.asyncDispose]());

  const statusOf = async (listener: string, lines: readonly string[], path?: string) =>
    (await own.get(listener, lines, path)).status;

  test('those that could not are let in', async () => {
    expect(await statusOf('metlo', [`authorization: ${bearer}`])).toBe(200);
    expect(await statusOf('metlo', [`Authorization: bEARER   ${bearer}  `])).toBe(200);
    // RFC 9112, 5.2: a line that is folded is the same as a space.
    expect(await statusOf('metlo', [`authorization: Bearer`, ` ${bearer}`])).toBe(200);
    expect(await statusOf('hygiara', [`x-api-key: ${apiKey}`])).toBe(200);
    expect(await statusOf('metal', [`x-metal-client-id: ${pair.clientId}`, `x-metal-api-key: ${pair.secret}`])).toBe(
      200,
    );
  });

  test('repeated, be it the same or another, and joined', async () => {
    const other = neverIssued('metlo_');
    for (const lines of [
      [`authorization: ${bearer}`, `authorization: ${bearer}`],
      [`authorization: ${bearer}`, `Authorization: Bearer ${bearer}`],
      [`authorization: ${bearer}`, `authorization: ${other}`],
      [`authorization: ${other}`, `authorization: ${bearer}`],
      [`authorization: ${bearer},${bearer}`],
      [`authorization: ${bearer}, Bearer ${bearer}`],
      [`authorization: Bearer ${bearer},`],
      [`authorization: ,${bearer}`],
    ]) {
      expect(await statusOf('metlo', lines), lines.join(' | ').replaceAll(bearer, '…')).toBe(401);
    }
    expect(await statusOf('hygiara', [`x-api-key: ${apiKey}`, `x-api-key: ${apiKey}`])).toBe(401);
    const { clientId, secret } = pair;
    for (const lines of [
      [`x-metal-client-id: ${clientId}`, `x-metal-client-id: ${clientId}`, `x-metal-api-key: ${secret}`],
      [`x-metal-client-id: ${clientId}`, `x-metal-api-key: ${secret}`, `x-metal-api-key: ${secret}`],
    ]) {
      expect(await statusOf('metal', lines)).toBe(401);
    }
  });

  test('repeated and empty but for one: Envoy drops what is empty of Authorization alone', async () => {
    expect(await statusOf('metlo', [`authorization: ${bearer}`, 'authorization:'])).toBe(200);
    expect(await statusOf('metlo', ['authorization:', `authorization: ${bearer}`])).toBe(200);
    expect(await statusOf('hygiara', ['x-api-key:', `x-api-key: ${apiKey}`])).toBe(401);
    expect(await statusOf('hygiara', [`x-api-key: ${apiKey}`, 'x-api-key:'])).toBe(401);
  });

  test('two in one header, a scheme without a token, and a scheme that is none', async () => {
    for (const value of unreadableBearers(bearer)) {
      expect(await statusOf('metlo', [`authorization: ${value}`]), value.replaceAll(bearer, '…')).toBe(401);
    }
    // A line that is folded within the token cuts it in two.
    expect(await statusOf('metlo', [`authorization: ${bearer.slice(0, 20)}`, ` ${bearer.slice(20)}`])).toBe(401);
    for (const value of [`Bearer ${apiKey}`, '', `${apiKey} ${apiKey}`]) {
      expect(await statusOf('hygiara', [`x-api-key: ${value}`])).toBe(401);
    }
  });

  test('overlong, at every length', async () => {
    for (const length of [513, 1024, 1025, 20_000]) {
      expect(await statusOf('metlo', [`authorization: ${'a'.repeat(length)}`])).toBe(401);
      expect(await statusOf('metlo', [`authorization: Bearer ${' '.repeat(length)}${bearer}`])).toBe(
        length < 900 ? 200 : 401,
      );
    }
    // Beyond what Envoy takes of headers.
    expect(await statusOf('metlo', [`authorization: ${'a'.repeat(70_000)}`])).toBe(431);
  });

  test('nowhere but in the keyspace’s own headers: not in the query, a cookie or another header', async () => {
    for (const [lines, path] of [
      [[], `/?authorization=Bearer%20${bearer}&api_key=${bearer}&access_token=${bearer}&token=${bearer}`],
      [[`x-api-key: ${bearer}`], '/'],
      [[`proxy-authorization: Bearer ${bearer}`], '/'],
      [[`cookie: authorization=${bearer}`], '/'],
      [[`connection: authorization`, `authorization: ${bearer}`], '/'],
    ] as const) {
      expect(await statusOf('metlo', lines, path)).toBe(401);
    }
    const query = `/?x-metal-client-id=${pair.clientId}&x-metal-api-key=${pair.secret}`;
    expect(await statusOf('metal', [], query)).toBe(401);
    expect(await statusOf('metal', [`x-metal-client-id: ${pair.clientId}`], query)).toBe(401);
    expect(await statusOf('metal', [`authorization: Bearer ${pair.secret}`], '/')).toBe(401);
  });

  test('what a client sends beside it in no known encoding changes nothing', async () => {
    expect(await statusOf('metlo', [`authorization: ${bearer}`, 'user-agent: caf\u00e9', 'x-more: \u00ff\u00fe'])).toBe(
      200,
    );
  });
});

describe('a denial', () => {
  test('takes effect at once: revoked, switched off, and of another organization', async () => {
    const { key, secret } = await create('hygiara');
    const lines = [`x-api-key: ${secret}`];
    const selector = { selector: { $case: 'keyId' as const, value: key.keyId } };
    const ref = { keyspace: 'hygiara', organizationId: 'acme', actor: ADA, selector };
    const disable = async (disabled: boolean) => {
      const request = UpdateKeyRequest.fromPartial({ ...ref, key: Key.create({ disabled }), updateMask: ['disabled'] });
      await call((done) => service.keys.updateKey(request, done));
    };
    expect((await envoy.get('hygiara', lines)).status).toBe(200);
    await disable(true);
    expect((await envoy.get('hygiara', lines)).status).toBe(401);
    await disable(false);
    expect((await envoy.get('hygiara', lines)).status).toBe(200);
    const reason = RevocationReason.COMPROMISED;
    await call((done) => service.keys.revokeKey(RevokeKeyRequest.fromPartial({ ...ref, reason }), done));
    const refused = await envoy.get('hygiara', lines);
    expect(refused).toMatchObject({ status: 401, body: '{"error":"unauthorized"}' });
    expect(refused.received).toBeUndefined();
  });

  test('of a route that is for one organization and asks for scopes', async () => {
    const strict = (example: string) =>
      example.replace(
        '{ keyspace: hotmetal }',
        "{ keyspace: hotmetal, organization_id: acme, required_scopes: 'read write' }",
      );
    await using own = await startEnvoy(service.address, strict);
    const get = async (fields: Partial<CreateKeyRequest>) => {
      const { secret } = await create('hotmetal', fields);
      return own.get('hotmetal', [`authorization: Bearer ${secret}`]);
    };
    expect(await get({ scopes: ['read', 'write', 'more'] })).toMatchObject({ status: 200 });
    expect(await get({ scopes: ['read'] })).toMatchObject({
      status: 403,
      body: '{"error":"insufficient scope"}',
      headers: { 'www-authenticate': 'Bearer realm="hotmetal", error="insufficient_scope"' },
    });
    const other = await get({ scopes: ['read', 'write'], organizationId: 'other' });
    expect(other).toMatchObject({ status: 401, body: '{"error":"unauthorized"}' });
    expect(other.headers['www-authenticate']).toBe('Bearer realm="hotmetal", error="invalid_token"');
  });
});

describe('the service away', () => {
  test('killed, it lets nobody in, and the upstream is not asked; started again, it serves as before', async () => {
    await using own = await startService();
    await using gateway = await startEnvoy(own.address);
    const request = CreateKeyRequest.fromPartial({
      keyspace: 'hygiara',
      organizationId: 'acme',
      actor: ADA,
      name: 'ci',
    });
    const { credential } = await call<CreateKeyResponse>((done) => own.keys.createKey(request, done));
    const lines = [`x-api-key: ${credential ? secretOf(credential) : ''}`];
    expect((await gateway.get('hygiara', lines)).status).toBe(200);
    await own.kill();
    for (const sent of [lines, [], [`x-api-key: ${neverIssued('hrdly_')}`]]) {
      const refused = await gateway.get('hygiara', sent);
      expect(refused).toMatchObject({ status: 503, body: '' });
      expect(refused.received).toBeUndefined();
    }
    await own.restart();
    await expect.poll(async () => (await gateway.get('hygiara', lines)).status).toBe(200);
    expect((await gateway.get('hygiara')).status).toBe(401);
  });
});

describe('what the example says', () => {
  test('with a callers file Envoy needs the token that it takes from its environment', async () => {
    await using folder = await makeGuardedFolder(join(tmpdir(), 'keyreeve-callers-'));
    const gateway = newCallerToken({ name: 'gateway', roles: ['verifier'], keyspaces: ['*'], organizations: ['*'] });
    const admin = newCallerToken({
      name: 'admin',
      roles: ['admin'],
      keyspaces: ['*'],
      organizations: ['*'],
      mayAssertActor: true,
    });
    if (Array.isArray(gateway) || Array.isArray(admin)) throw new Error('a caller that the file does not take');
    const file = join(folder.path, 'callers.yaml');
    await writeFile(file, `callers:\n${gateway.line}\n${admin.line}\n`);
    await using own = await startService({ KEYREEVE_CALLERS: file });
    const request = CreateKeyRequest.fromPartial({
      keyspace: 'hygiara',
      organizationId: 'acme',
      actor: ADA,
      name: 'ci',
    });
    const metadata = withToken(admin.token.reveal());
    const { credential } = await call<CreateKeyResponse>((done) => own.keys.createKey(request, metadata, done));
    const lines = [`x-api-key: ${credential ? secretOf(credential) : ''}`];

    const uncommented = (example: string) =>
      example.replaceAll(/# (initial_metadata:| {2}- \{ key: authorization)/g, '$1');
    const env = { KEYREEVE_TOKEN: gateway.token.reveal() };
    await using known = await startEnvoy(own.address, uncommented, env);
    expect((await known.get('hygiara', lines)).status).toBe(200);
    await using unknown = await startEnvoy(own.address);
    expect(await unknown.get('hygiara', lines)).toMatchObject({ status: 503, body: '' });
  });

  test('a pause of the service, as garbage collection is one, turns nobody away', async () => {
    await using own = await startService();
    await using gateway = await startEnvoy(own.address);
    const sent = [`x-api-key: ${neverIssued('hrdly_')}`];
    expect((await gateway.get('hygiara', sent)).status).toBe(401);
    process.kill(own.pid, 'SIGSTOP');
    const asked = gateway.get('hygiara', sent);
    await sleep(PAUSE_MS);
    process.kill(own.pid, 'SIGCONT');
    expect((await asked).status).toBe(401);
  });

  test('where one replica does not answer another one is asked', async () => {
    const closed = await freePort();
    const replica = (port: number) =>
      `              - endpoint: { address: { socket_address: { address: 127.0.0.1, port_value: ${port} } } }\n`;
    const two = (example: string) => example.replace(replica(50051), replica(50051) + replica(closed));
    await using own = await startEnvoy(service.address, two);
    const { secret } = await create('hygiara');
    for (let time = 1; time <= 20; time += 1) {
      expect((await own.get('hygiara', [`x-api-key: ${secret}`])).status).toBe(200);
    }
  });
});

async function getByHttp2(port: number, headers: Record<string, string | string[]>) {
  const session = connectHttp2(`http://127.0.0.1:${port}`);
  try {
    const stream = session.request({ ':path': '/', ...headers });
    stream.setEncoding('utf8');
    let body = '';
    stream.on('data', (text: string) => (body += text));
    await once(stream, 'end');
    return { received: JSON.parse(body) as NonNullable<HttpResponse['received']> };
  } finally {
    session.destroy();
  }
}

describe('a route that is configured wrong', () => {
  const client = () => new AuthorizationClient(service.address, credentials.createInsecure());

  test.each([
    [{}, 'INVALID_ARGUMENT', 'KEYSPACE_REQUIRED'],
    [{ keyspace: '' }, 'INVALID_ARGUMENT', 'KEYSPACE_REQUIRED'],
    [{ keyspace: 'nothing' }, 'NOT_FOUND', 'KEYSPACE_NOT_FOUND'],
    [{ keyspace: 'hygiara', organization_id: '' }, 'INVALID_ARGUMENT', 'ORGANIZATION_ID_INVALID'],
    [{ keyspace: 'hygiara', required_scopes: '' }, 'INVALID_ARGUMENT', 'SCOPES_INVALID'],
    [{ keyspace: 'hygiara', required_scope: 'read' }, 'INVALID_ARGUMENT', 'ROUTE_FIELD_UNKNOWN'],
  ])('is an error that says what to do, and not a guess: %o', async (extensions, code, reason) => {
    const { secret } = await create('hygiara');
    const request = CheckRequest.fromPartial({
      attributes: {
        contextExtensions: new Map(Object.entries(extensions)),
        request: { http: { headers: new Map([['x-api-key', secret]]) } },
      },
    });
    const checks = client();
    const told = await toldBy(call<CheckResponse>((done) => checks.check(request, done)));
    checks.close();
    expect(told).toMatchObject({ code, reason });
  });

  test('lets nobody in, and the log says so once', async () => {
    const wrong = (example: string) => example.replace('{ keyspace: hotmetal }', '{ keyspace: hot-metal }');
    await using own = await startEnvoy(service.address, wrong);
    const { secret } = await create('hotmetal');
    for (let time = 1; time <= 3; time += 1) {
      expect((await own.get('hotmetal', [`authorization: Bearer ${secret}`])).status).toBe(503);
    }
    const said = () => service.linesWith('KEYSPACE_NOT_FOUND');
    await expect.poll(said).toHaveLength(1);
    expect(JSON.parse(said()[0] ?? '')).toMatchObject({ level: 'warn', caller: 'local', reason: 'KEYSPACE_NOT_FOUND' });
  });
});
