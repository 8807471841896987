/** Between a real nginx or Caddy and the service: who may ask, what is asked, and what becomes of requests where no answer comes. */
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { newCallerToken } from '../../src/config/callers.js';
import { startCaddy } from '../support/caddy.js';
import { freePort } from '../support/free-port.js';
import { HTTP_GATEWAYS } from '../support/gateways.js';
import { withToken } from '../support/grpc-server.js';
import { makeGuardedFolder } from '../support/guard.js';
import { issue } from '../support/issue.js';
import { startNginx } from '../support/nginx.js';
import { neverIssued } from '../support/product.js';
import { type Service, startService } from '../support/service.js';

const HTTP = { KEYREEVE_HTTP_LISTEN: '127.0.0.1:0' };
const CERTIFICATES = fileURLToPath(new URL('../support/certificates/', import.meta.url));

let service: Service;
beforeAll(async () => {
  service = await startService(HTTP);
});
afterAll(() => service[Symbol.asyncDispose]());

describe.each(HTTP_GATEWAYS)('$gateway', ({ gateway: name, start }) => {
  test('lets nobody in while the service is away, and serves as before once it is back', async () => {
    await using own = await startService(HTTP);
    // A service that is started again listens somewhere else; the gateway is to find it.
    await using between = await startCounting(() => Number(own.httpAddress.split(':').at(-1)));
    await using gateway = await start(between.address);
    const { secret } = await issue(own, 'hygiara');
    const lines = [`x-api-key: ${secret}`];
    expect((await gateway.get('hygiara', lines)).status).toBe(200);
    await own.kill();
    for (const sent of [lines, [], [`x-api-key: ${neverIssued('hrdly_')}`]]) {
      const refused = await gateway.get('hygiara', sent);
      expect(refused.status).toBe(name === 'nginx' ? 503 : 502);
      expect(refused.received).toBeUndefined();
    }
    await own.restart();
    await expect.poll(async () => (await gateway.get('hygiara', lines)).status).toBe(200);
    expect((await gateway.get('hygiara')).status).toBe(401);
  });

  test('lets nobody in while the service hangs', async () => {
    await using own = await startService(HTTP);
    // As long as the example has it.
    const unchanged = (example: string) => example.replaceAll(/(_timeout) 1s/g, '$1 1000ms');
    await using gateway = await start(own.httpAddress, unchanged);
    const { secret } = await issue(own, 'hygiara');
    const lines = [`x-api-key: ${secret}`];
    await expect.poll(async () => (await gateway.get('hygiara', lines)).status).toBe(200);
    process.kill(own.pid, 'SIGSTOP');
    const refused = await gateway.get('hygiara', lines);
    process.kill(own.pid, 'SIGCONT');
    expect(refused.status).toBeGreaterThanOrEqual(500);
    expect(refused.received).toBeUndefined();
  });

  test('asks another replica where one does not answer', async () => {
    const closed = await freePort();
    const two = (example: string) =>
      example
        .replace('server 127.0.0.1:8081;', `server 127.0.0.1:8081;\nserver localhost:${closed};`)
        .replace('reverse_proxy 127.0.0.1:8081 {', `reverse_proxy 127.0.0.1:8081 localhost:${closed} {`);
    await using gateway = await start(service.httpAddress, two);
    const { secret } = await issue(service, 'hygiara');
    for (let time = 1; time <= 20; time += 1) {
      expect((await gateway.get('hygiara', [`x-api-key: ${secret}`])).status).toBe(200);
    }
  });

  test('keeps its connections, whatever is answered', async () => {
    await using between = await startCounting(() => Number(service.httpAddress.split(':').at(-1)));
    await using gateway = await start(between.address);
    const { secret } = await issue(service, 'hygiara');
    for (let time = 1; time <= 20; time += 1) {
      expect((await gateway.get('hygiara', [`x-api-key: ${secret}`])).status).toBe(200);
      expect((await gateway.get('hygiara')).status).toBe(401);
      expect((await gateway.get('metlo', ['x-keyreeve-admin: true'])).status).toBeGreaterThanOrEqual(400);
    }
    // Go's may need another where one is not back yet; 60 questions were asked.
    expect(between.connections).toBeLessThan(6);
  });

  test('a route that is configured wrong lets nobody in, and the log says so once', async () => {
    const wrong = (example: string) =>
      example.replace('keyspace=metlo;', `keyspace=${name}-metlo;`).replace('checked metlo', `checked ${name}-metlo`);
    await using gateway = await start(service.httpAddress, wrong);
    const { secret } = await issue(service, 'metlo');
    for (let time = 1; time <= 3; time += 1) {
      const refused = await gateway.get('metlo', [`authorization: ${secret}`]);
      expect(refused).toMatchObject({ status: 500, body: '{"error":"internal error"}' });
      expect(refused.received).toBeUndefined();
    }
    await expect.poll(() => service.linesWith('KEYSPACE_NOT_FOUND')).toHaveLength(1);
  });

  test('a route may be for one organization and ask for scopes', async () => {
    const strict = (example: string) => {
      const asked = 'organization_id=acme&required_scopes=read+write';
      return example
        .replace('keyspace=hotmetal;', `keyspace=hotmetal&${asked};`)
        .replace('keyspace={args.0}', `keyspace={args.0}&${asked}`);
    };
    await using gateway = await start(service.httpAddress, strict);
    const get = async (scopes: string[], organizationId = 'acme') => {
      const { secret } = await issue(service, 'hotmetal', { scopes, organizationId });
      return gateway.get('hotmetal', [`authorization: Bearer ${secret}`]);
    };
    expect(await get(['read', 'write', 'more'])).toMatchObject({ status: 200 });
    expect(await get(['read'])).toMatchObject({
      status: 403,
      body: '{"error":"insufficient scope"}',
      headers: {
        'content-type': 'application/json',
        'www-authenticate': 'Bearer realm="hotmetal", error="insufficient_scope"',
      },
    });
    expect(await get(['read', 'write'], 'other')).toMatchObject({ status: 401, body: '{"error":"unauthorized"}' });
  });
});

describe('with a callers file', () => {
  test('each shows the token that its example has a place for', async () => {
    await using folder = await makeGuardedFolder(join(tmpdir(), 'keyreeve-callers-'));
    const [gateway, admin] = [
      { name: 'gateway', roles: ['verifier'] },
      { name: 'admin', roles: ['admin'], mayAssertActor: true },
    ].map((grant) => newCallerToken({ keyspaces: ['*'], organizations: ['*'], ...grant }));
    if (!gateway || Array.isArray(gateway) || !admin || Array.isArray(admin)) throw new Error('no callers');
    const file = join(folder.path, 'callers.yaml');
    await writeFile(file, `callers:\n${gateway.line}\n${admin.line}\n`);
    await using own = await startService({ ...HTTP, KEYREEVE_CALLERS: file });
    const { secret } = await issue(own, 'hygiara', {}, withToken(admin.token.reveal()));
    const lines = [`x-api-key: ${secret}`];

    const token = gateway.token.reveal();
    const told = (example: string) => example.replace('X-Keyreeve-Token "";\n#', `X-Keyreeve-Token "${token}";\n#`);
    const uncommented = (example: string) =>
      example.replace('# header_up X-Keyreeve-Token', 'header_up X-Keyreeve-Token');
    await using nginx = await startNginx(own.httpAddress, told);
    await using caddy = await startCaddy(own.httpAddress, uncommented, { KEYREEVE_TOKEN: token });
    for (const known of [nginx, caddy]) {
      const response = await known.get('hygiara', lines);
      expect(response.status).toBe(200);
      expect(JSON.stringify(response)).not.toContain(token);
      // Nor does a client bring one in.
      expect((await known.get('hygiara', [...lines, 'x-keyreeve-token: krt_nobody'])).status).toBe(200);
    }
    await using unknownNginx = await startNginx(own.httpAddress);
    await using unknownCaddy = await startCaddy(own.httpAddress);
    for (const unknown of [unknownNginx, unknownCaddy]) {
      for (const sent of [lines, [...lines, `x-keyreeve-token: ${token}`]]) {
        const refused = await unknown.get('hygiara', sent);
        expect(refused.status).toBe(500);
        expect(refused.received).toBeUndefined();
      }
    }
  });

  test('or the certificate', async () => {
    await using folder = await makeGuardedFolder(join(tmpdir(), 'keyreeve-callers-'));
    const file = join(folder.path, 'callers.yaml');
    const all = "keyspaces: '*', organizations: '*'";
    await writeFile(
      file,
      `callers:\n  - { name: gateway, spiffe_id: 'spiffe://example.org/gateway', roles: [verifier], ${all} }\n`,
    );
    const pem = (name: string) => join(CERTIFICATES, name);
    await using own = await startService({
      ...HTTP,
      KEYREEVE_CALLERS: file,
      KEYREEVE_TLS_CERT: pem('server.pem'),
      KEYREEVE_TLS_KEY: pem('server.key'),
      KEYREEVE_TLS_CLIENT_CA: pem('ca.pem'),
    });
    const nginxWith = (certificate: string) => (example: string) =>
      example
        .replaceAll(/^# (proxy_ssl_)/gm, '$1')
        .replaceAll('/etc/nginx/gateway', pem(certificate))
        .replace('/etc/nginx/keyreeve-ca.pem', pem('ca.pem'))
        .replace('keyreeve.example.org', 'localhost')
        .replaceAll('http://keyreeve/', 'https://keyreeve/');
    const caddyWith = (certificate: string) => (example: string) =>
      example
        .replace(
          '# tls_client_auth gateway.pem gateway.key',
          `tls_client_auth ${pem(certificate)}.pem ${pem(certificate)}.key`,
        )
        .replace('# tls_trusted_ca_certs keyreeve-ca.pem', `tls_trusted_ca_certs ${pem('ca.pem')}`)
        .replace('# tls_server_name keyreeve.example.org', 'tls_server_name localhost');
    // Nobody has a key here: known, a gateway is told to refuse.
    await using nginx = await startNginx(own.httpAddress, nginxWith('gateway'));
    expect((await nginx.get('hygiara')).status).toBe(401);
    await using caddy = await startCaddy(own.httpAddress, caddyWith('gateway'));
    expect((await caddy.get('hygiara')).status).toBe(401);
    await using otherNginx = await startNginx(own.httpAddress, nginxWith('stranger'));
    expect((await otherNginx.get('hygiara')).status).toBe(500);
    await using otherCaddy = await startCaddy(own.httpAddress, caddyWith('unnamed'));
    expect((await otherCaddy.get('hygiara')).status).toBe(500);
    await using plain = await startNginx(own.httpAddress);
    expect((await plain.get('hygiara')).status).toBe(503);
  });
});

interface Counting extends AsyncDisposable {
  readonly address: string;
  /** So many there were. */
  readonly connections: number;
}

/** Passes connections on, and counts them. */
async function startCounting(target: () => number): Promise<Counting> {
  const sockets = new Set<Socket>();
  let connections = 0;
  const server = createServer((near) => {
    connections += 1;
    const far = connect(target(), '127.0.0.1');
    for (const [one, other] of [
      [near, far],
      [far, near],
    ] as const) {
      sockets.add(one);
      one.on('error', () => undefined).once('close', () => other.destroy());
      one.pipe(other);
    }
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    address: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    get connections() {
      return connections;
    },
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, 'close');
    },
  };
}
