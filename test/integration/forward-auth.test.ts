/** Forward auth of the service as built: by which gateways it may be asked, and over what. */
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { copyFile, writeFile } from 'node:fs/promises';
import { type IncomingMessage } from 'node:http';
import { Agent, get as getHttps } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { connect, createSecureContext } from 'node:tls';
import { fileURLToPath } from 'node:url';
import { credentials } from '@grpc/grpc-js';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { newCallerToken } from '../../src/config/callers.js';
import { KeyServiceClient } from '../../src/gen/keyreeve/v1/key_service.js';
import { exchange, toResponse } from '../support/gateway.js';
import { withToken } from '../support/grpc-server.js';
import { type GuardedFolder, makeGuardedFolder } from '../support/guard.js';
import { issue } from '../support/issue.js';
import { type Service, startService } from '../support/service.js';

const CERTIFICATES = fileURLToPath(new URL('../support/certificates/', import.meta.url));
const pem = (name: string) => readFileSync(join(CERTIFICATES, name));
const HTTP = { KEYREEVE_HTTP_LISTEN: '127.0.0.1:0' };
const ROUTES = ['/forward_auth', '/auth_request'] as const;

function token(name: string, roles: string[], fields: object = {}) {
  const made = newCallerToken({ name, roles, keyspaces: ['*'], organizations: ['*'], ...fields });
  if (Array.isArray(made)) throw new Error('a caller that the file does not take');
  return { text: made.token.reveal(), digest: made.tokenSha256, line: made.line };
}
const gateway = token('gateway', ['verifier'], { organizations: ['acme'] });
const platform = token('platform', ['provisioner', 'auditor']);
const admin = token('admin', ['admin'], { mayAssertActor: true });
const both = token('both', ['verifier']);

async function statusOf(service: Service, path: string, lines: readonly string[]): Promise<number> {
  const port = Number(service.httpAddress.split(':').at(-1));
  return toResponse(await exchange(port, [`GET ${path} HTTP/1.1`, 'host: a', 'connection: close', ...lines])).status;
}

describe('a gateway that is known by its token', () => {
  let folder: GuardedFolder;
  let service: Service;
  let bearer: string;
  let elsewhere: string;
  beforeAll(async () => {
    folder = await makeGuardedFolder(join(tmpdir(), 'keyreeve-forward-'));
    const file = join(folder.path, 'callers.yaml');
    await writeFile(file, `callers:\n${gateway.line}\n${platform.line}\n${admin.line}\n`);
    service = await startService({ ...HTTP, KEYREEVE_CALLERS: file, KEYREEVE_LOG_LEVEL: 'debug' });
    bearer = (await issue(service, 'hotmetal', {}, withToken(admin.text))).secret;
    elsewhere = (await issue(service, 'hotmetal', { organizationId: 'other' }, withToken(admin.text))).secret;
  });
  afterAll(async () => {
    await service[Symbol.asyncDispose]();
    await folder[Symbol.asyncDispose]();
  });

  const asks = (route: string, shown: readonly string[], key = bearer) =>
    statusOf(service, `${route}?keyspace=hotmetal`, [`authorization: Bearer ${key}`, ...shown]);

  test.each(ROUTES)('gets an answer of %s, for what its policy shows it', async (route) => {
    expect(await asks(route, [`X-Keyreeve-Token: ${gateway.text}`])).toBe(200);
    expect(await asks(route, [`X-Keyreeve-Token: ${gateway.text}`], elsewhere)).toBe(401);
    expect(await asks(route, [`X-Keyreeve-Token: ${admin.text}`], elsewhere)).toBe(200);
  });

  test.each(ROUTES)('and any other, or one without the role, none that lets in, from %s', async (route) => {
    for (const shown of [
      [],
      ['X-Keyreeve-Token:'],
      ['X-Keyreeve-Token: krt_nobody'],
      [`X-Keyreeve-Token: Bearer ${gateway.text}`],
      [`X-Keyreeve-Token: ${gateway.text}`, `X-Keyreeve-Token: ${gateway.text}`],
      [`X-Keyreeve-Token: ${gateway.text}, ${gateway.text}`],
      [`X-Keyreeve-Token: ${platform.text}`],
      [`cookie: x-keyreeve-token=${gateway.text}`],
    ]) {
      expect(await asks(route, shown)).toBe(500);
    }
    // Authorization is the client's: the token of a caller is nothing there.
    expect(await asks(route, [], gateway.text)).toBe(500);
    expect(await asks(route, [`X-Keyreeve-Token: ${gateway.text}`], gateway.text)).toBe(401);
    expect(await statusOf(service, `${route}?keyspace=hotmetal&x-keyreeve-token=${gateway.text}`, [])).toBe(500);
  });

  test('the log says so once of each, with no token', async () => {
    const warned = () => service.linesWith('a gateway is configured wrong').map((line) => JSON.parse(line) as object);
    await expect.poll(warned).toMatchObject([
      { level: 'warn', reason: 'CALLER_UNKNOWN' },
      { level: 'warn', reason: 'CALLER_NOT_ALLOWED' },
    ]);
    for (const secret of [gateway.text, platform.text, bearer]) expect(service.output()).not.toContain(secret);
  });
});

describe('over TLS', () => {
  let folder: GuardedFolder;
  let service: Service;
  let bearer: string;
  beforeAll(async () => {
    folder = await makeGuardedFolder(join(tmpdir(), 'keyreeve-forward-'));
    const inFolder = (name: string) => join(folder.path, name);
    for (const name of ['server.pem', 'server.key', 'ca.pem']) await copyFile(join(CERTIFICATES, name), inFolder(name));
    await writeFile(
      inFolder('callers.yaml'),
      `callers:
  - { name: gateway, spiffe_id: 'spiffe://example.org/gateway', roles: [verifier], keyspaces: '*', organizations: '*' }
  - { name: both, token_sha256: ${both.digest}, dns_name: platform.example.org, roles: [verifier], keyspaces: '*', organizations: '*' }
  - { name: admin, token_sha256: ${admin.digest}, roles: [admin], keyspaces: '*', organizations: '*', may_assert_actor: true }
`,
    );
    service = await startService({
      ...HTTP,
      KEYREEVE_TLS_CERT: inFolder('server.pem'),
      KEYREEVE_TLS_KEY: inFolder('server.key'),
      KEYREEVE_TLS_CLIENT_CA: inFolder('ca.pem'),
      KEYREEVE_CALLERS: inFolder('callers.yaml'),
    });
    const shown = credentials.createSsl(pem('ca.pem'), pem('unnamed.key'), pem('unnamed.pem'));
    const keys = new KeyServiceClient(service.address.replace('127.0.0.1', 'localhost'), shown);
    bearer = (await issue({ keys }, 'hotmetal', {}, withToken(admin.text))).secret;
    keys.close();
  });
  afterAll(async () => {
    await service[Symbol.asyncDispose]();
    await folder[Symbol.asyncDispose]();
  });

  /** The status, or how the connection ended without one. */
  async function asks(certificate: string | undefined, callerToken?: string, agent?: Agent): Promise<number | string> {
    const shown = certificate === undefined ? {} : { cert: pem(`${certificate}.pem`), key: pem(`${certificate}.key`) };
    const headers = {
      authorization: `Bearer ${bearer}`,
      ...(callerToken !== undefined && { 'x-keyreeve-token': callerToken }),
    };
    const options = { ca: pem('ca.pem'), servername: 'localhost', headers, agent: agent ?? false, ...shown };
    const url = `https://${service.httpAddress}/forward_auth?keyspace=hotmetal`;
    try {
      const response = await new Promise<IncomingMessage>((resolve, reject) => {
        getHttps(url, options, resolve).once('error', reject);
      });
      await text(response);
      return response.statusCode ?? 0;
    } catch (error) {
      return (error as Error).name;
    }
  }

  test.each([
    ['a certificate that the policy knows', 'gateway', undefined, 200],
    ['a certificate and a token, where both are asked for', 'platform', both.text, 200],
    ['a certificate, where a token is asked for beside it', 'platform', undefined, 500],
    ['a token, with the certificate of another caller', 'gateway', both.text, 500],
    ['a token, where a certificate is asked for beside it', undefined, both.text, 500],
    ['a certificate that the policy knows, and a token that nobody has', 'gateway', 'krt_nobody', 500],
    ['a certificate with a name that the policy does not know', 'unnamed', undefined, 500],
    ['a certificate with two SPIFFE ids', 'two-ids', undefined, 500],
    ['a certificate that has ended', 'expired', undefined, 500],
    ["another CA's certificate with the right name", 'stranger', undefined, 500],
    ['no certificate', undefined, undefined, 500],
    ['no certificate, and the token of one whose entry asks for none', undefined, admin.text, 500],
    ["another CA's certificate, and that token", 'stranger', admin.text, 500],
    ['a certificate, and that token', 'unnamed', admin.text, 200],
  ])('%s', async (_, certificate, callerToken, status) => {
    expect(await asks(certificate, callerToken)).toBe(status);
  });

  test('a session that is taken up again shows no more than the one before', async () => {
    for (const [certificate, callerToken, status] of [
      ['gateway', undefined, 200],
      ['stranger', undefined, 500],
      ['stranger', admin.text, 500],
      [undefined, undefined, 500],
      [undefined, admin.text, 500],
    ] as const) {
      // A connection for each request, and each but the first takes up the session of the one before.
      const agent = new Agent({ keepAlive: false, maxCachedSessions: 10 });
      for (let time = 1; time <= 3; time += 1) expect(await asks(certificate, callerToken, agent)).toBe(status);
      agent.destroy();
    }
  });

  test('a connection stays with the certificate that it began with', async () => {
    const port = Number(service.httpAddress.split(':').at(-1));
    const socket = connect({
      ...{ host: '127.0.0.1', port, ca: pem('ca.pem'), servername: 'localhost', maxVersion: 'TLSv1.2' },
      ...{ cert: pem('unnamed.pem'), key: pem('unnamed.key') },
    });
    await once(socket, 'secureConnect');
    // With the right name, and of another CA: checked it would be refused, as it is where a connection begins with it.
    socket.setKeyCert(createSecureContext({ cert: pem('stranger.pem'), key: pem('stranger.key') }));
    const renegotiated = await new Promise<boolean>((resolve) => {
      socket.on('error', () => undefined).once('close', () => resolve(false));
      socket.renegotiate({}, () => resolve(true));
    });
    expect(renegotiated).toBe(false);
  });

  test('a caller that is taken out of the file is unknown from then on, on an open connection too', async () => {
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    expect(await asks('gateway', undefined, agent)).toBe(200);
    const file = join(folder.path, 'callers.yaml');
    const before = readFileSync(file, 'utf8');
    await writeFile(file, before.replace('example.org/gateway', 'example.org/nobody'));
    process.kill(service.pid, 'SIGHUP');
    await expect.poll(() => asks('gateway', undefined, agent)).toBe(500);
    await writeFile(file, before);
    process.kill(service.pid, 'SIGHUP');
    await expect.poll(() => asks('gateway', undefined, agent)).toBe(200);
    agent.destroy();
  });

  test('without it nothing is answered', async () => {
    await expect(fetch(`http://${service.httpAddress}/forward_auth?keyspace=hotmetal`)).rejects.toThrow();
  });
});
