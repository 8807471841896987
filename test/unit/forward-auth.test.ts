/** What the two routes of forward auth make of an answer, and that whatever is not understood lets nobody in. */
import { EventEmitter, once } from 'node:events';
import { connect } from 'node:net';
import { afterEach, describe, expect, test } from 'vitest';

import { RunningCalls } from '../../src/grpc/running-calls.js';
import { forwardAuthRoutes } from '../../src/http/forward-auth.js';
import { type HttpServer, serveHttp } from '../../src/http/server.js';
import { systemClock } from '../../src/keys/clock.js';
import type { HttpRules, Keyspace } from '../../src/keys/keyspace.js';
import { createLog } from '../../src/log.js';
import { StoreFault } from '../../src/store/faults.js';
import { Overloaded } from '../../src/verify/misses.js';
import type { Verification, Verifier } from '../../src/verify/verifier.js';
import { aKey, aKeyspace } from '../support/domain.js';
import { exchange, type HttpResponse, toResponse } from '../support/gateway.js';

const rules: HttpRules = {
  credential: { kind: 'bearer', header: 'authorization', schemes: ['bearer'] },
  refusal: { status: 401, contentType: 'text/plain', body: 'no key, no entry' },
  rateLimitHeaders: 'standard_and_x',
};
const KEY = aKey({ name: 'Café ✓', scopes: ['read', 'write'] });
const RATE_LIMIT = { limit: 60, remaining: 12, windowMs: 60_000, resetTime: new Date(Date.now() + 20_000) };
const VALID: Verification = { decision: 'VALID', key: KEY, cacheTtlMs: 0 };
const PRESENTED = ['authorization: Bearer something'];

let server: HttpServer | undefined;
let logged: string[] = [];
afterEach(async () => {
  await server?.[Symbol.asyncDispose]();
  server = undefined;
});

async function serveWith(verify: Verifier, http: Partial<HttpRules> = {}): Promise<void> {
  const web: Keyspace = { ...aKeyspace({ name: 'web' }), http: { ...rules, ...http } };
  const keyspaces = new Map([web, aKeyspace()].map((keyspace) => [keyspace.name, keyspace]));
  logged = [];
  const log = createLog('trace', { write: (line) => logged.push(line) });
  const running = new RunningCalls();
  const parts = { verify, keyspaces, clock: systemClock };
  const routes = forwardAuthRoutes(parts, { access: () => ({}), running, log });
  server = await serveHttp({ listen: { host: '127.0.0.1', port: 0 }, access: {}, running }, routes, log);
}

const port = () => Number(server?.address.split(':').at(-1));

async function ask(path: string, lines: readonly string[] = PRESENTED, method = 'GET'): Promise<HttpResponse> {
  return toResponse(await exchange(port(), [`${method} ${path} HTTP/1.1`, 'host: a', 'connection: close', ...lines]));
}

const ROUTES = ['/forward_auth', '/auth_request'] as const;

describe.each(ROUTES)('%s', (route) => {
  test('lets in with 200, what the upstream is to be told, and the limit; without a body', async () => {
    await serveWith(() => ({ ...VALID, rateLimit: RATE_LIMIT }));
    const { status, headers, body } = await ask(`${route}?keyspace=web`);
    expect([status, body]).toEqual([200, '']);
    expect(headers).toMatchObject({
      'cache-control': 'no-store',
      'content-length': '0',
      'x-keyreeve-key-id': KEY.keyId,
      'x-keyreeve-keyspace': 'shop',
      'x-keyreeve-organization': 'acme',
      'x-keyreeve-scopes': 'read write',
      'x-keyreeve-key-name': 'Caf%C3%A9%20%E2%9C%93',
      'ratelimit-policy': '"per-key";q=60;w=60',
      'x-ratelimit-limit': '60',
    });
  });

  test('tells also that there is nothing: a gateway that copies headers puts it in the place of a client’s', async () => {
    await serveWith(() => ({ ...VALID, key: { ...KEY, name: '', scopes: [] } }));
    const { headers } = await ask(`${route}?keyspace=web`);
    expect([headers['x-keyreeve-scopes'], headers['x-keyreeve-key-name']]).toEqual(['', '']);
    expect(headers).not.toHaveProperty('ratelimit');
  });

  test.each(['GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'OPTIONS', 'PATCH'])('answers %s alike', async (method) => {
    await serveWith(({ credential }) =>
      credential.kind === 'bearer' && credential.token.reveal() === 'good' ? VALID : { decision: 'NOT_FOUND' },
    );
    expect((await ask(`${route}?keyspace=web`, ['authorization: Bearer good'], method)).status).toBe(200);
    expect((await ask(`${route}?keyspace=web`, ['authorization: Bearer bad'], method)).status).toBe(401);
  });

  test.each([
    ['what the store cannot tell', new StoreFault('unavailable', 'mongodb://inside is away')],
    ['too many that wait', new Overloaded()],
    ['what nobody foresaw', new Error('inside')],
  ])('%s is a 503 that says nothing of it', async (_, error) => {
    for (const verify of [
      () => Promise.reject(error),
      () => {
        throw error;
      },
    ]) {
      await serveWith(verify);
      const { status, headers, body } = await ask(`${route}?keyspace=web`);
      expect(status).toBe(503);
      expect(headers).toMatchObject({ 'retry-after': '1', 'cache-control': 'no-store' });
      expect(JSON.stringify([headers, body])).not.toContain('inside');
      await server?.[Symbol.asyncDispose]();
    }
  });

  test.each([
    ['', 'KEYSPACE_REQUIRED'],
    ['?', 'KEYSPACE_REQUIRED'],
    ['?keyspace=', 'KEYSPACE_REQUIRED'],
    ['?Keyspace=web', 'KEYSPACE_REQUIRED'],
    ['?keyspace=nothing', 'KEYSPACE_NOT_FOUND'],
    ['?keyspace=shop', 'HTTP_RULES_MISSING'],
    ['?keyspace=web&keyspace=web', 'ROUTE_FIELD_UNKNOWN'],
    ['?keyspace=web&keyspace=shop', 'ROUTE_FIELD_UNKNOWN'],
    ['?keyspace=web&required_scopes=read&required_scopes=write', 'ROUTE_FIELD_UNKNOWN'],
    ['?keyspace=web&required_scope=read', 'ROUTE_FIELD_UNKNOWN'],
    ['?keyspace=web&required_scopes=', 'SCOPES_INVALID'],
    ['?keyspace=web&organization_id=', 'ORGANIZATION_ID_INVALID'],
    ['?keyspace=web&organization_id=%ff', 'ORGANIZATION_ID_INVALID'],
  ])('with the query "%s" it lets nobody in, and the log says why, once', async (query, reason) => {
    await serveWith(() => VALID);
    for (let time = 1; time <= 3; time += 1) expect((await ask(`${route}${query}`)).status).toBe(500);
    const warned = logged.map((line) => JSON.parse(line) as { level: string }).filter(({ level }) => level === 'warn');
    expect(warned).toMatchObject([{ caller: 'local', reason }]);
  });

  test('asks for the scopes and the organization of the query', async () => {
    const asked: unknown[] = [];
    await serveWith(({ terms }) => {
      asked.push(terms);
      return VALID;
    });
    await ask(`${route}?keyspace=web&required_scopes=write+read&organization_id=acme`);
    await ask(`${route}?required_scopes=read%20write&organization_id=acme&keyspace=web`);
    const terms = { organizationId: 'acme', requiredScopes: ['read', 'write'] };
    expect(asked).toEqual([terms, terms]);
  });

  test.each([
    'X-Keyreeve-Organization: victim',
    'x-keyreeve-admin: true',
    'x_keyreeve_scopes: admin',
    'x-keyreeve_key-id: key_forged',
    'x.keyreeve.organization: victim',
    'X_KEYREEVE-TOKEN: krt_x',
  ])('turns away who sends "%s": the gateway could not be told to remove it', async (line) => {
    await serveWith(() => VALID);
    const { status, headers, body } = await ask(`${route}?keyspace=web`, [...PRESENTED, line]);
    const isWhole = route === '/forward_auth';
    expect(status).toBe(isWhole ? 400 : 403);
    expect(isWhole ? body : headers['x-keyreeve-body']).toBe(
      '{"error":"x-keyreeve headers are not for clients to send"}',
    );
    expect(headers['x-keyreeve-status']).toBe(isWhole ? undefined : '400');
  });

  test('sees a header behind however many others', async () => {
    await serveWith(() => VALID);
    const fill = Array.from({ length: 5000 }, (_, n) => `a${n}: b`);
    expect((await ask(`${route}?keyspace=web`, [...PRESENTED, ...fill])).status).toBe(200);
    expect((await ask(`${route}?keyspace=web`, [...PRESENTED, ...fill, ...PRESENTED])).status).toBe(401);
    const forged = await ask(`${route}?keyspace=web`, [...PRESENTED, ...fill, 'x-keyreeve-scopes: admin']);
    expect(forged.headers).not.toHaveProperty('x-keyreeve-key-id');
  });
});

const REFUSED = () => ({ decision: 'NOT_FOUND' }) as const;

test('/forward_auth refuses as the keyspace says', async () => {
  await serveWith(REFUSED, { refusal: { status: 404, contentType: 'text/html', body: 'há\nnão\n' } });
  const { status, headers, body } = await ask('/forward_auth?keyspace=web');
  expect([status, headers['content-type'], body]).toEqual([404, 'text/html', 'há\nnão\n']);
  expect(headers).not.toHaveProperty('x-keyreeve-status');
  expect(headers['content-length']).toBe('9');
});

describe('/auth_request tells the refusal in headers, since nginx takes nothing else', () => {
  test.each([
    [401, 401],
    [400, 403],
    [403, 403],
    [404, 403],
    [503, 403],
  ])('%i as %i', async (real, status) => {
    await serveWith(REFUSED, { refusal: { status: real, contentType: 'text/plain', body: '{"no": "entry"}' } });
    const { headers, body, ...answer } = await ask('/auth_request?keyspace=web');
    expect([answer.status, body]).toEqual([status, '']);
    expect(headers).toMatchObject({
      'content-length': '0',
      'x-keyreeve-status': String(real),
      'x-keyreeve-body': '{"no": "entry"}',
      'x-keyreeve-content-type': 'text/plain',
    });
    expect(headers).not.toHaveProperty('content-type');
    expect(headers['www-authenticate']).toBe(real === 401 ? 'Bearer realm="web", error="invalid_token"' : undefined);
  });

  test('the limit, and when to come again', async () => {
    await serveWith(() => ({ decision: 'RATE_LIMITED', key: KEY, rateLimit: RATE_LIMIT, retryAfterMs: 19_500 }));
    const { status, headers } = await ask('/auth_request?keyspace=web');
    expect(status).toBe(403);
    expect(headers).toMatchObject({
      'x-keyreeve-status': '429',
      'x-keyreeve-body': '{"error":"rate limit exceeded"}',
      'retry-after': '20',
      ratelimit: '"per-key";r=12;t=20',
      'x-ratelimit-remaining': '12',
    });
  });

  test.each(['two\nlines', 'não', ' spaced', 'spaced ', '', 'a\tb'])(
    'no body that a header would change: %j',
    async (body) => {
      await serveWith(REFUSED, { refusal: { status: 401, contentType: 'text/plain', body } });
      const { headers } = await ask('/auth_request?keyspace=web');
      expect(headers['x-keyreeve-status']).toBe('401');
      expect(headers).not.toHaveProperty('x-keyreeve-body');
    },
  );

  test('what could not be decided is an error for nginx, and no refusal', async () => {
    await serveWith(() => Promise.reject(new StoreFault('unavailable', 'away')));
    const { status, headers } = await ask('/auth_request?keyspace=web');
    expect(status).toBe(503);
    expect(headers).toMatchObject({ 'x-keyreeve-status': '503', 'x-keyreeve-body': '{"error":"service unavailable"}' });
  });
});

test('the log has a line at debug for each, with the decision and without the credential', async () => {
  await serveWith(({ credential }) =>
    credential.kind === 'bearer' && credential.token.reveal() === 'CANARY' ? VALID : { decision: 'NOT_FOUND' },
  );
  await ask('/forward_auth?keyspace=web', ['authorization: Bearer CANARY']);
  await ask('/auth_request?keyspace=web');
  await ask('/auth_request?keyspace=web', []);
  const line = { level: 'debug', call: 'ForwardAuth', caller: 'local', keyspace: 'web', message: 'call' };
  expect(logged.map((text) => JSON.parse(text) as unknown)).toMatchObject([
    { ...line, decision: 'VALID', key_id: KEY.keyId },
    { ...line, decision: 'NOT_FOUND' },
    { ...line, decision: 'MALFORMED' },
  ]);
  expect(logged.join('\n')).not.toContain('CANARY');
});

test('a request that waits when the service ends is answered, and the next one finds no connection', async () => {
  const begun = new EventEmitter();
  await serveWith(() => {
    begun.emit('begun');
    return new Promise(() => undefined);
  });
  const isBegun = once(begun, 'begun');
  const idle = connect(port(), '127.0.0.1');
  await once(idle, 'connect');
  const waiting = ask('/forward_auth?keyspace=web');
  await isBegun;
  await server?.[Symbol.asyncDispose]();
  expect((await waiting).status).toBe(503);
  expect(await exchange(port(), ['GET /forward_auth?keyspace=web HTTP/1.1', 'host: a'])).toBe('');
  idle.destroy();
});

test('connections are kept, and when the service ends none is cut off before its answer', async () => {
  const asked = new EventEmitter();
  const answers: ((verification: Verification) => void)[] = [];
  await serveWith(() => {
    asked.emit('asked');
    return new Promise((resolve) => answers.push(resolve));
  });
  const socket = connect(port(), '127.0.0.1');
  let got = '';
  socket.setEncoding('latin1').on('data', (text: string) => (got += text));
  const request = `GET /forward_auth?keyspace=web HTTP/1.1\r\nhost: a\r\n${PRESENTED.join('\r\n')}\r\n\r\n`;
  const answerOne = async () => {
    const isAsked = once(asked, 'asked');
    socket.write(request);
    await isAsked;
    return answers.pop();
  };
  (await answerOne())?.(VALID);
  await expect.poll(() => got).toContain('HTTP/1.1 200');
  expect(got).toContain('Connection: keep-alive');
  const last = await answerOne();
  const isClosed = once(socket, 'close');
  const ended = server?.[Symbol.asyncDispose]();
  last?.(VALID);
  await Promise.all([ended, isClosed]);
  expect(got.match(/HTTP\/1\.1 200/g)).toHaveLength(2);
});
