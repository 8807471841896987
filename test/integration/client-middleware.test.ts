/** The door before an HTTP server: real requests, the real client, the real service. */
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, request } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import { afterAll, beforeAll, expect, test } from 'vitest';

import { type Credential, openClient, type KeyreeveClient } from '../../src/client/client.js';
import { type Door, type DoorOptions, requireKey, verificationOf } from '../../src/client/middleware.js';
import { faultOf } from '../support/fault-of.js';
import { type Service, startService } from '../support/service.js';

let service: Service;
let client: KeyreeveClient;
beforeAll(async () => {
  service = await startService();
  // A verification that is repeated counts twice.
  client = openClient({ address: service.address, verifyTimeoutMs: 60_000 });
});
afterAll(async () => {
  await client.close();
  await service[Symbol.asyncDispose]();
});

async function issue(keyspace = 'hygiara', scopes: string[] = []) {
  const ref = { keyspace, organizationId: `org-${randomUUID()}` };
  const actor = { type: 'USER', id: 'ada', permissions: ['api_keys.manage', 'admin'] } as const;
  const created = await client.createKey({ ...ref, actor, name: 'ci', scopes });
  if (!created.ok) throw new Error(created.reason);
  return { ...ref, actor, keyId: created.key.keyId, credential: created.credential };
}

function tokenOf(credential: Credential): string {
  if (typeof credential !== 'string') throw new Error('a pair instead of a bearer token');
  return credential;
}

/** A server that answers with the key that was let in. */
async function serve(door: Door) {
  const reached: string[] = [];
  const server = createServer((incoming, response) => {
    void door(incoming, response, () => {
      reached.push(incoming.url ?? '');
      response.end(verificationOf(incoming)?.key.keyId);
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  return {
    reached,
    /** @param headers name after value, the same one several times where it is to come so */
    async get(headers: readonly string[] = [], path = '/') {
      const asked = request({ port, host: '127.0.0.1', path, headers: ['Host', 'localhost', ...headers] });
      asked.end();
      const [answer] = (await once(asked, 'response')) as [IncomingMessage];
      return { status: answer.statusCode, headers: answer.headers, body: await text(answer) };
    },
    async [Symbol.asyncDispose]() {
      const closed = once(server, 'close');
      server.close();
      server.closeAllConnections();
      await closed;
    },
  };
}

const serveWith = (options: DoorOptions = {}) => serve(requireKey(client, options));

test('who presents a good key is let in, and the handler finds whose it is', async () => {
  await using server = await serveWith();
  const { keyId, credential } = await issue();
  expect(await server.get(['Authorization', `Bearer ${tokenOf(credential)}`])).toMatchObject({
    status: 200,
    body: keyId,
  });
});

test('who presents none, an unknown one, or one that is revoked gets 401, and the handler is not reached', async () => {
  await using server = await serveWith();
  const { credential, keyId, ...by } = await issue();
  await client.revokeKey({ ...by, selector: { keyId } });
  const challenge = { 'www-authenticate': 'Bearer', 'content-type': 'application/json' };
  for (const headers of [[], ['Authorization', 'Bearer x'], ['Authorization', `Bearer ${tokenOf(credential)}`]]) {
    const answer = await server.get(headers);
    expect(answer).toMatchObject({ status: 401, headers: challenge, body: '{"error":"unauthorized"}' });
  }
  expect(server.reached).toEqual([]);
});

test('a good key is no use where it leaves open which one is meant, nor in the query', async () => {
  await using server = await serveWith({
    credential: [{ header: 'authorization', scheme: 'Bearer' }, { header: 'x-api-key' }],
  });
  const good = tokenOf((await issue()).credential);
  for (const headers of [
    ['Authorization', `Bearer ${good}`, 'Authorization', `Bearer ${good}`],
    ['Authorization', `Bearer ${good}`, 'authorization', 'Bearer x'],
    ['Authorization', `Bearer ${good}, Bearer x`],
    ['Authorization', `Bearer ${good}`, 'X-API-Key', good],
    ['X-API-Key', good, 'X-API-Key', ''],
    ['X-API-Key', ''],
  ]) {
    expect(await server.get(headers)).toMatchObject({ status: 401 });
  }
  expect(await server.get([], `/?api_key=${good}&access_token=${good}&authorization=Bearer%20${good}`)).toMatchObject({
    status: 401,
  });
  expect(server.reached).toEqual([]);
  expect(await server.get(['X-API-Key', good])).toMatchObject({ status: 200 });
});

test('a pair of fields is taken whole', async () => {
  const credential = { clientIdHeader: 'x-metal-client-id', secretHeader: 'x-metal-api-key' };
  await using server = await serveWith({ credential, ask: { keyspace: 'metal' } });
  const issued = await issue('metal');
  if (typeof issued.credential === 'string') throw new Error('metal issues pairs');
  const { clientId, secret } = issued.credential;
  expect(await server.get(['x-metal-client-id', clientId, 'x-metal-api-key', secret])).toMatchObject({
    body: issued.keyId,
  });
  expect(await server.get(['x-metal-client-id', clientId])).toMatchObject({ status: 401 });
  expect(await server.get(['x-metal-api-key', secret])).toMatchObject({ status: 401 });
});

test('a key that is not good for this gets 403, by what the request asks for', async () => {
  const { credential, organizationId } = await issue('hygiara', ['read']);
  await using server = await serveWith({
    ask: ({ method, url }) => ({
      requiredScopes: [method === 'GET' ? 'read' : 'write'],
      organizationId: url?.slice(1),
    }),
  });
  const headers = ['Authorization', `Bearer ${tokenOf(credential)}`];
  expect(await server.get(headers, `/${organizationId}`)).toMatchObject({ status: 200 });
  expect(await server.get(headers, '/other')).toMatchObject({ status: 403, body: '{"error":"forbidden"}' });
});

test('a limit is told with every answer, and 429 with when to come again', async () => {
  await using server = await serveWith();
  const { credential } = await issue('hookdeploy');
  const headers = ['Authorization', `Bearer ${tokenOf(credential)}`];
  const answers = await Promise.all(Array.from({ length: 61 }, () => server.get(headers)));
  const policy = '"key";q=60;w=60';
  for (const answer of answers) expect(answer.headers).toMatchObject({ 'ratelimit-policy': policy });
  const limited = answers.filter(({ status }) => status === 429);
  expect(limited).toHaveLength(1);
  expect(limited[0]?.headers.ratelimit).toMatch(/^"key";r=0;t=([1-9]|[1-5]\d|60)$/);
  expect(Number(limited[0]?.headers['retry-after'])).toBeGreaterThan(0);
});

test('the service away lets nobody in, and says that it was no fault of the key', async () => {
  await using away = openClient({ address: '127.0.0.1:1', verifyTimeoutMs: 100 });
  const faults: unknown[] = [];
  await using server = await serve(requireKey(away, { onFault: (fault) => faults.push(fault) }));
  const fault = await faultOf(async () => {
    const answer = await server.get(['Authorization', 'Bearer x']);
    expect(answer).toMatchObject({ status: 503, body: '{"error":"unavailable"}' });
    expect(faults).toHaveLength(1);
    throw faults.pop();
  });
  expect(fault).toMatchObject({ name: 'ServiceFault', code: 'UNAVAILABLE' });
  expect(server.reached).toEqual([]);
});

test('terms that the service refuses, and terms that cannot be found, let nobody in', async () => {
  const faults: unknown[] = [];
  const onFault = (fault: unknown) => faults.push(fault);
  const headers = ['Authorization', `Bearer ${tokenOf((await issue()).credential)}`];
  await using refused = await serveWith({ ask: { keyspace: 'nowhere' }, onFault });
  expect(await refused.get(headers)).toMatchObject({ status: 503 });
  const ask = (): never => {
    throw new Error('no terms');
  };
  await using broken = await serveWith({ ask, onFault });
  expect(await broken.get(headers)).toMatchObject({ status: 503 });
  expect([...refused.reached, ...broken.reached]).toEqual([]);
  expect(faults).toMatchObject([{ reason: 'KEYSPACE_NOT_FOUND' }, { message: 'no terms' }]);
});

test("who is refused can be told so in the server's own words", async () => {
  await using server = await serveWith({
    refuse: (refusal, _request, response) => response.end(`${refusal.status} ${refusal.reason}`),
  });
  expect(await server.get()).toMatchObject({ status: 401, body: '401 CREDENTIAL_REQUIRED' });
  expect(await server.get(['Authorization', 'Bearer x'])).toMatchObject({ status: 401, body: '401 MALFORMED' });
});

test('a request that came through no door has no verification', async () => {
  await using server = await serve((_request, _response, next) => {
    next();
    return Promise.resolve();
  });
  expect(await server.get(['Authorization', 'Bearer x'])).toMatchObject({ status: 200, body: '' });
});
