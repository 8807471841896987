/** The five products behind a real nginx and a real Caddy, configured as the examples are. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import type { Key } from '../../src/gen/keyreeve/v1/key.js';
import type { Gateway, HttpResponse } from '../support/gateway.js';
import { HTTP_GATEWAYS } from '../support/gateways.js';
import { issue, revoke } from '../support/issue.js';
import { expectLetIn, expectTurnedDown, neverIssued } from '../support/product.js';
import { expectLimitInHeaders } from '../support/rate-limit-headers.js';
import { type Service, startService } from '../support/service.js';

const UNAUTHORIZED = '{"error":"unauthorized"}';
const CREDENTIALS = ['authorization', 'x-api-key', 'x-metal-client-id', 'x-metal-api-key'];

let service: Service;
beforeAll(async () => {
  service = await startService({ KEYREEVE_HTTP_LISTEN: '127.0.0.1:0' });
});
afterAll(() => service[Symbol.asyncDispose]());

/** Asserts that the upstream was told of the key, and of nothing else, and got no credential. */
function expectTold({ received }: HttpResponse, key: Key): void {
  const told = received?.headers.filter(([name]) => name.includes('keyreeve')).sort();
  expect(told).toEqual([
    ['x-keyreeve-key-id', key.keyId],
    ...(key.name === '' ? [] : [['x-keyreeve-key-name', encodeURIComponent(key.name)]]),
    ['x-keyreeve-keyspace', key.keyspace],
    ['x-keyreeve-organization', key.organizationId],
    ...(key.scopes.length === 0 ? [] : [['x-keyreeve-scopes', key.scopes.join(' ')]]),
  ]);
  expect(received?.headers.filter(([name]) => CREDENTIALS.includes(name))).toEqual([]);
}

describe.each(HTTP_GATEWAYS)('behind $gateway', ({ start }) => {
  let gateway: Gateway;
  beforeAll(async () => {
    gateway = await start(service.httpAddress);
  });
  afterAll(() => gateway[Symbol.asyncDispose]());

  test('Hot Metal: a bearer token, that works no more as soon as it is revoked', async () => {
    const { key, secret } = await issue(service, 'hotmetal', { name: '' });
    const line = `Authorization: Bearer ${secret}`;
    const response = await gateway.get('hotmetal', [line]);
    expectLetIn(response, key);
    expectTold(response, key);
    const never = `Authorization: Bearer ${neverIssued('hm_')}`;
    for (const lines of [[], [`Authorization: ${secret}`], [`X-API-Key: ${secret}`], [never]]) {
      expectTurnedDown(await gateway.get('hotmetal', lines), 401, UNAUTHORIZED);
    }
    await revoke(service, key);
    const refused = await gateway.get('hotmetal', [line]);
    expectTurnedDown(refused, 401, UNAUTHORIZED);
    expect(refused.headers['www-authenticate']).toBe('Bearer realm="hotmetal", error="invalid_token"');
    expect(refused.headers['cache-control']).toBe('no-store');
  });

  test('Metal: client id and secret, both, and its 401 to the letter', async () => {
    const { key, secret } = await issue(service, 'metal');
    const { key: other } = await issue(service, 'metal');
    const lines = (clientId: string, apiKey: string) => [
      `x-metal-client-id: ${clientId}`,
      `x-metal-api-key: ${apiKey}`,
    ];
    const response = await gateway.get('metal', lines(key.clientId, secret));
    expectLetIn(response, key);
    expectTold(response, key);
    const [idLine = '', secretLine = ''] = lines(key.clientId, secret);
    for (const wrong of [
      [],
      [idLine],
      [secretLine],
      lines(other.clientId, secret),
      lines(secret, key.clientId),
      lines('', ''),
      [`Authorization: Bearer ${secret}`, idLine],
    ]) {
      const refused = await gateway.get('metal', wrong);
      expectTurnedDown(refused, 401, '{"error":"invalid api key or clientId"}');
      expect(refused.headers['www-authenticate']).toBe('ApiKey realm="metal"');
    }
  });

  test('Metlo: the key alone, or as a bearer token', async () => {
    const { key, secret } = await issue(service, 'metlo');
    for (const value of [secret, `Bearer ${secret}`, `bearer  ${secret}`]) {
      const response = await gateway.get('metlo', [`Authorization: ${value}`]);
      expectLetIn(response, key);
      expectTold(response, key);
    }
    for (const lines of [[], [`X-API-Key: ${secret}`], [`Authorization: Basic ${secret}`]]) {
      expectTurnedDown(await gateway.get('metlo', lines), 401, UNAUTHORIZED);
    }
  });

  test('HookDeploy: 60 a minute, told in every response, then 429 and when to come again', async () => {
    const { key, secret } = await issue(service, 'hookdeploy');
    const line = `Authorization: Bearer ${secret}`;
    const asked: HttpResponse[] = [];
    while (asked.length < 62) asked.push(await gateway.get('hookdeploy', [line]));
    expect(asked.map(({ status }) => status)).toEqual([...Array<number>(60).fill(200), 429, 429]);
    await revoke(service, key);
    asked.push(await gateway.get('hookdeploy', [line]));
    for (const response of asked) expectLimitInHeaders(response, 60);
    expectTurnedDown(asked[60], 429, '{"error":"rate limit exceeded"}');
    expectTurnedDown(asked[62], 401, UNAUTHORIZED);
  });

  test('HookDeploy: 401 once a key has expired', async () => {
    const expiration = { $case: 'ttl' as const, value: { seconds: 0n, nanos: 1_000_000 } };
    const { secret } = await issue(service, 'hookdeploy', { expiration });
    const get = () => gateway.get('hookdeploy', [`Authorization: Bearer ${secret}`]);
    await expect.poll(async () => (await get()).status).toBe(401);
    expectTurnedDown(await get(), 401, UNAUTHORIZED);
  });

  test('Hygiara: X-API-Key, and no bearer token there', async () => {
    const { key, secret } = await issue(service, 'hygiara', { name: 'Café ✓, 100%', scopes: ['read', 'orders:write'] });
    const response = await gateway.get('hygiara', [`X-API-Key: ${secret}`], '/v1/reviews?page=2');
    expectLetIn(response, key);
    expectTold(response, key);
    expect(response.received).toMatchObject({ method: 'GET', url: '/v1/reviews?page=2' });
    expect(JSON.stringify(response)).not.toContain(secret);
    // Without a limit the upstream may tell of its own.
    expect(response.headers).toMatchObject({ ratelimit: '"upstream";r=1', 'x-ratelimit-remaining': '1' });
    expect(response.headers).not.toHaveProperty('ratelimit-policy');
    const bearer = `Bearer ${secret}`;
    for (const lines of [[], [`X-API-Key: ${bearer}`], [`Authorization: ${bearer}`]]) {
      expectTurnedDown(await gateway.get('hygiara', lines), 401, UNAUTHORIZED);
    }
  });

  test('a key with all that may be told of one', async () => {
    const scopes = Array.from({ length: 30 }, (_, n) => `${n}:${'s'.repeat(90)}`);
    const { key, secret } = await issue(service, 'hygiara', { name: '✓'.repeat(200), scopes });
    const response = await gateway.get('hygiara', [`X-API-Key: ${secret}`]);
    expectLetIn(response, key);
    expectTold(response, key);
  });

  test('a request with a body reaches the upstream whole, or not at all', async () => {
    const { secret } = await issue(service, 'hygiara');
    const body = 'x'.repeat(200_000);
    const response = await gateway.post('hygiara', [`X-API-Key: ${secret}`], body);
    expect(response).toMatchObject({ status: 200, received: { method: 'POST', body } });
    expectTurnedDown(await gateway.post('hygiara', [], '{"a": 1}'), 401, UNAUTHORIZED);
  });
});
