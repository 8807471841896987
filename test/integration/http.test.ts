/** The HTTP port: what it answers, over what, and how it ends. */
import { readFileSync } from 'node:fs';
import { get as getHttps } from 'node:https';
import { connect } from 'node:net';
import { fileURLToPath } from 'node:url';
import { text } from 'node:stream/consumers';
import type { IncomingMessage } from 'node:http';
import { expect, test } from 'vitest';

import { startService } from '../support/service.js';

const HTTP = { KEYREEVE_HTTP_LISTEN: '127.0.0.1:0' };
const certificate = (name: string) => fileURLToPath(new URL(`../support/certificates/${name}`, import.meta.url));

async function get(address: string, path: string): Promise<{ status: number; text: string }> {
  const response = await fetch(`http://${address}${path}`);
  return { status: response.status, text: await response.text() };
}

test('health is told to whoever asks, and another path names those that there are', async () => {
  await using service = await startService(HTTP);
  expect(await get(service.httpAddress, '/healthz')).toEqual({ status: 200, text: 'ok\n' });
  expect(await get(service.httpAddress, '/readyz?verbose')).toEqual({ status: 200, text: 'ready\n' });
  const other = await get(service.httpAddress, '/');
  expect(other.status).toBe(404);
  expect(other.text).toContain('/healthz');
});

test('with TLS nothing is answered without it, and a probe needs no certificate', async () => {
  await using service = await startService({
    ...HTTP,
    KEYREEVE_TLS_CERT: certificate('server.pem'),
    KEYREEVE_TLS_KEY: certificate('server.key'),
    KEYREEVE_TLS_CLIENT_CA: certificate('ca.pem'),
  });
  await expect(get(service.httpAddress, '/healthz')).rejects.toThrow();
  const ca = readFileSync(certificate('ca.pem'));
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    getHttps(`https://${service.httpAddress}/healthz`, { ca, servername: 'localhost' }, resolve).once('error', reject);
  });
  expect(response.statusCode).toBe(200);
  expect(await text(response)).toBe('ok\n');
});

test('an address that is taken is named, and nothing starts', async () => {
  await using service = await startService(HTTP);
  const taken = startService({ KEYREEVE_HTTP_LISTEN: service.httpAddress });
  await expect(taken).rejects.toThrow(`cannot listen on ${service.httpAddress}`);
});

test('a connection that says nothing does not keep the service from ending', async () => {
  await using service = await startService(HTTP);
  const [host = '', port] = service.httpAddress.split(':');
  const silent = connect(Number(port), host);
  await new Promise((resolve) => silent.once('connect', resolve));
  // What it had not read is thrown away, and the connection reset.
  silent.on('error', () => undefined);
  silent.write('GET /healthz HTTP/1.1\r\n');
  expect(await service.stop()).toBe(0);
  silent.destroy();
});

test('nor does one that has not begun with TLS', async () => {
  await using service = await startService({
    ...HTTP,
    KEYREEVE_TLS_CERT: certificate('server.pem'),
    KEYREEVE_TLS_KEY: certificate('server.key'),
  });
  const [host = '', port] = service.httpAddress.split(':');
  const silent = connect(Number(port), host);
  await new Promise((resolve) => silent.once('connect', resolve));
  silent.on('error', () => undefined);
  // That it was accepted is known only when one that came after it has been answered.
  const ca = readFileSync(certificate('ca.pem'));
  const options = { ca, servername: 'localhost', agent: false };
  await new Promise((resolve, reject) => {
    getHttps(`https://${service.httpAddress}/healthz`, options, (response) => {
      void text(response).then(resolve);
    }).once('error', reject);
  });
  expect(await service.stop()).toBe(0);
  silent.destroy();
});
