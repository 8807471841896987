/** What an attacker sends, behind a real nginx and a real Caddy: refused or stripped, never guessed at. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import type { Gateway, HttpResponse } from '../support/gateway.js';
import { HTTP_GATEWAYS } from '../support/gateways.js';
import { issue } from '../support/issue.js';
import { neverIssued } from '../support/product.js';
import { type Service, startService } from '../support/service.js';
import { unreadableBearers } from '../support/unreadable.js';

let service: Service;
beforeAll(async () => {
  service = await startService({ KEYREEVE_HTTP_LISTEN: '127.0.0.1:0' });
});
afterAll(() => service[Symbol.asyncDispose]());

const FORGED = [
  'x-keyreeve-organization: victim',
  'X-Keyreeve-Organization: victim',
  'x-keyreeve-key-id: key_forged',
  'x-keyreeve-keyspace: metal',
  'x-keyreeve-scopes: admin',
  'x-keyreeve-key-name: root',
  'x-keyreeve-admin: true',
  'x-keyreeve-token: krt_forged',
  'x_keyreeve_scopes: admin',
  'x-keyreeve_scopes: admin',
  'X_KEYREEVE-organization: victim',
  'x.keyreeve.organization: victim',
];

function toldUpstream({ received }: HttpResponse): Record<string, string[]> | undefined {
  if (!received) return undefined;
  const told: Record<string, string[]> = {};
  for (const [name, value] of received.headers) if (name.includes('keyreeve')) (told[name] ??= []).push(value);
  return told;
}

describe.each(HTTP_GATEWAYS)('behind $gateway', ({ gateway: name, start }) => {
  let gateway: Gateway;
  let bearer: string;
  let apiKey: string;
  let pair: { clientId: string; secret: string };
  beforeAll(async () => {
    gateway = await start(service.httpAddress);
    bearer = (await issue(service, 'metlo')).secret;
    apiKey = (await issue(service, 'hygiara')).secret;
    const { key, secret } = await issue(service, 'metal');
    pair = { clientId: key.clientId, secret };
  });
  afterAll(() => gateway[Symbol.asyncDispose]());

  /** nginx refuses some of it by itself, as a bad request. */
  async function expectRefused(product: string, lines: readonly string[], path?: string): Promise<void> {
    const { status, received } = await gateway.get(product, lines, path);
    const what = lines.join(' | ').replaceAll(bearer, '…').replaceAll(apiKey, '…').slice(0, 200);
    expect(received, what).toBeUndefined();
    expect(name === 'nginx' ? [400, 401] : [401], what).toContain(status);
  }
  const statusOf = async (product: string, lines: readonly string[]) => (await gateway.get(product, lines)).status;

  test('a credential in one way is let in', async () => {
    expect(await statusOf('metlo', [`authorization: ${bearer}`])).toBe(200);
    expect(await statusOf('metlo', [`Authorization: bEARER   ${bearer}  `])).toBe(200);
    expect(await statusOf('metal', [`x-metal-client-id: ${pair.clientId}`, `x-metal-api-key: ${pair.secret}`])).toBe(
      200,
    );
    expect(await statusOf('metlo', [`authorization: ${bearer}`, 'user-agent: caf\u00e9', 'x-more: \u00ff\u00fe'])).toBe(
      200,
    );
  });

  test('repeated, be it the same or another, joined, and empty but for one', async () => {
    const other = neverIssued('metlo_');
    for (const lines of [
      [`authorization: ${bearer}`, `authorization: ${bearer}`],
      [`authorization: ${bearer}`, `Authorization: Bearer ${bearer}`],
      [`authorization: ${bearer}`, `authorization: ${other}`],
      [`authorization: ${other}`, `authorization: ${bearer}`],
      [`authorization: ${bearer}`, 'authorization:'],
      ['authorization:', `authorization: ${bearer}`],
      [`authorization: ${bearer},${bearer}`],
      [`authorization: ${bearer}, Bearer ${bearer}`],
      [`authorization: Bearer ${bearer},`],
      [`authorization: ,${bearer}`],
    ]) {
      await expectRefused('metlo', lines);
    }
    for (const lines of [
      [`x-api-key: ${apiKey}`, `X-API-Key: ${apiKey}`],
      [`x-api-key: ${apiKey}`, `x-api-key: ${neverIssued('hrdly_')}`],
      [`x-api-key: ${neverIssued('hrdly_')}`, `x-api-key: ${apiKey}`],
      [`x-api-key: ${apiKey}`, 'x-api-key:'],
      ['x-api-key:', `x-api-key: ${apiKey}`],
    ]) {
      await expectRefused('hygiara', lines);
    }
    const { clientId, secret } = pair;
    for (const lines of [
      [`x-metal-client-id: ${clientId}`, `x-metal-client-id: ${clientId}`, `x-metal-api-key: ${secret}`],
      [`x-metal-client-id: ${clientId}`, `x-metal-api-key: ${secret}`, `x-metal-api-key: ${secret}`],
    ]) {
      await expectRefused('metal', lines);
    }
  });

  test('repeated behind so many others that they would fill what counts them', async () => {
    // More than Node keeps unless it is told otherwise.
    const fill = Array.from({ length: 2100 }, () => 'a: b');
    const lines = [`x-api-key: ${apiKey}`, ...fill];
    const alone = await gateway.get('hygiara', lines);
    // Some versions of nginx let nothing through that has so many.
    if (name !== 'nginx' || alone.status !== 400) {
      expect(toldUpstream(alone)).toMatchObject({ 'x-keyreeve-organization': ['acme'] });
    }
    await expectRefused('hygiara', [...lines, `x-api-key: ${apiKey}`]);
  });

  test('two in one header, a scheme without a token, and a scheme that is none', async () => {
    for (const value of unreadableBearers(bearer)) {
      await expectRefused('metlo', [`authorization: ${value}`]);
    }
    for (const value of [`Bearer ${apiKey}`, '', `${apiKey} ${apiKey}`]) {
      await expectRefused('hygiara', [`x-api-key: ${value}`]);
    }
  });

  test('overlong, at every length', async () => {
    for (const length of [513, 1024, 1025, 5000])
      await expectRefused('metlo', [`authorization: ${'a'.repeat(length)}`]);
    // Beyond what a gateway takes of headers.
    for (const length of [70_000, 2_000_000]) {
      const { received } = await gateway.get('metlo', [`authorization: ${'a'.repeat(length)}`]);
      expect(received).toBeUndefined();
    }
  });

  test('nowhere but in the keyspace’s own headers, nor does a client choose the route', async () => {
    for (const [lines, path] of [
      [[], `/?authorization=Bearer%20${bearer}&api_key=${bearer}&access_token=${bearer}&token=${bearer}`],
      [[`x-api-key: ${bearer}`], '/'],
      [[`proxy-authorization: Bearer ${bearer}`], '/'],
      [[`cookie: authorization=${bearer}`], '/'],
      [[`x-api-key: ${apiKey}`], '/?keyspace=hygiara'],
      [[`x-api-key: ${apiKey}`], '/forward_auth?keyspace=hygiara'],
      [[`x-api-key: ${apiKey}`, 'x-original-uri: /auth_request?keyspace=hygiara'], '/'],
      [[`x-api-key: ${apiKey}`, 'x-rewrite-url: /forward_auth?keyspace=hygiara'], '/'],
    ] as const) {
      await expectRefused('metlo', lines, path);
    }
    const { clientId, secret } = pair;
    await expectRefused('metal', [], `/?x-metal-client-id=${clientId}&x-metal-api-key=${secret}`);
    await expectRefused('metal', [`x-metal-client-id: ${clientId}`], `/?x-metal-api-key=${secret}`);
    await expectRefused('metal', [`authorization: Bearer ${secret}`]);
  });

  test.each(FORGED)('the upstream gets nothing of a header that a client forges: %s', async (line) => {
    const response = await gateway.get('hygiara', [`x-api-key: ${apiKey}`, line]);
    expectOwnOnly(response);
    // Also where it is the connection's own.
    const [header = ''] = line.split(':');
    for (const connection of [`connection: ${header}`, `connection: close, ${header}`]) {
      expectOwnOnly(await gateway.get('hygiara', [connection, `x-api-key: ${apiKey}`, line]));
    }
  });

  test.each(['x-keyreeve-organization', 'X-Keyreeve-Key-Id, x-keyreeve-scopes', 'close, X-KEYREEVE-KEYSPACE'])(
    'nor is anything that it is to get taken out by a client that names it in Connection: %s',
    async (names) => {
      expectOwnOnly(await gateway.get('hygiara', [`connection: ${names}`, `x-api-key: ${apiKey}`]));
    },
  );

  /** Asserts that the upstream was told of the key alone, or was not asked. */
  function expectOwnOnly(response: HttpResponse): void {
    if (!response.received) {
      expect([400, 401]).toContain(response.status);
      return;
    }
    expect(toldUpstream(response)).toEqual({
      'x-keyreeve-key-id': [expect.stringMatching(/^key_/)],
      'x-keyreeve-key-name': [expect.stringMatching(/^ci/)],
      'x-keyreeve-keyspace': ['hygiara'],
      'x-keyreeve-organization': ['acme'],
    });
  }
});

test('on a route without a check nothing of a client’s reaches the upstream under our names, by the examples', async () => {
  const ours = FORGED.filter((line) => !line.startsWith('x-keyreeve-admin'));
  const [{ start: startNginx }, { start: startCaddy }] = HTTP_GATEWAYS;
  await using nginx = await startNginx(service.httpAddress, (example) =>
    example.replace('include checked.conf;', 'include unchecked.conf;'),
  );
  expect(toldUpstream(await nginx.get('hotmetal', ours))).toEqual({});
  // Nothing but what keeps them out, and the upstream.
  await using caddy = await startCaddy(service.httpAddress, (example) =>
    example.replace(/reverse_proxy 127\.0\.0\.1:8081 \{.*\n\t\t\}\n/s, ''),
  );
  const response = await caddy.get('hotmetal', [...ours, 'x-keyreeve-admin: true']);
  expect(response.status).toBe(200);
  expect(toldUpstream(response)).toEqual({});
});

test('behind an nginx that takes every name, what no header of its configuration replaces is refused', async () => {
  const lenient = (example: string) =>
    example.replace(/^http \{$/m, 'http {\nunderscores_in_headers on;\nignore_invalid_headers off;');
  await using gateway = await HTTP_GATEWAYS[0].start(service.httpAddress, lenient);
  const { secret } = await issue(service, 'hygiara');
  for (const line of FORGED.filter((one) => !one.startsWith('x-keyreeve-token'))) {
    const response = await gateway.get('hygiara', [`x-api-key: ${secret}`, line]);
    expect(response).toMatchObject({ status: 400, body: '{"error":"x-keyreeve headers are not for clients to send"}' });
    expect(response.received).toBeUndefined();
  }
  expect((await gateway.get('hygiara', [`x-api-key: ${secret}`, 'x-other_header: 1'])).status).toBe(200);
});
