/** Callers known by their certificate, and what is refused: the service as built, over TLS. */
import { copyFile, writeFile } from 'node:fs/promises';
import { readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect } from 'node:tls';
import { fileURLToPath } from 'node:url';
import {
  type ChannelCredentials,
  connectivityState,
  credentials,
  Metadata,
  type ServiceError,
  status,
} from '@grpc/grpc-js';
import { afterAll, beforeAll, expect, test } from 'vitest';

import {
  BatchVerifyKeysRequest,
  type BatchVerifyKeysResponse,
  KeyServiceClient,
  VerifyKeyRequest,
  type VerifyKeyResponse,
} from '../../src/gen/keyreeve/v1/key_service.js';
import { newCallerToken } from '../../src/config/callers.js';
import { call } from '../support/call.js';
import { makeGuardedFolder } from '../support/guard.js';
import { type Service, startService } from '../support/service.js';

const CERTIFICATES = fileURLToPath(new URL('../support/certificates/', import.meta.url));
const pem = (name: string) => readFileSync(join(CERTIFICATES, name));
const DEADLINE_MS = 10_000;

const token = newCallerToken({ name: 'both', roles: ['verifier'], keyspaces: ['*'], organizations: ['*'] });
if (Array.isArray(token)) throw new Error('no token');
const CALLERS = `callers:
  - { name: gateway, spiffe_id: 'spiffe://example.org/gateway', roles: [verifier], keyspaces: '*', organizations: '*' }
  - { name: both, token_sha256: ${token.tokenSha256}, dns_name: platform.example.org, roles: [verifier], keyspaces: '*', organizations: '*' }
`;

let folder: Awaited<ReturnType<typeof makeGuardedFolder>>;
let service: Service;
const inFolder = (name: string) => join(folder.path, name);

beforeAll(async () => {
  folder = await makeGuardedFolder(join(tmpdir(), 'keyreeve-tls-'));
  await put('server');
  await copyFile(join(CERTIFICATES, 'ca.pem'), inFolder('ca.pem'));
  await writeFile(inFolder('callers.yaml'), CALLERS);
  service = await startService({
    KEYREEVE_TLS_CERT: inFolder('server.pem'),
    KEYREEVE_TLS_KEY: inFolder('server.key'),
    KEYREEVE_TLS_CLIENT_CA: inFolder('ca.pem'),
    KEYREEVE_CALLERS: inFolder('callers.yaml'),
  });
});
afterAll(async () => {
  await service[Symbol.asyncDispose]();
  await folder[Symbol.asyncDispose]();
});

/** Puts this certificate and its key in the place of the server's. */
async function put(name: string): Promise<void> {
  await copyFile(join(CERTIFICATES, `${name}.pem`), inFolder('server.pem'));
  await copyFile(join(CERTIFICATES, `${name}.key`), inFolder('server.key'));
}

function having(name: string): ChannelCredentials {
  return credentials.createSsl(pem('ca.pem'), pem(`${name}.key`), pem(`${name}.pem`));
}

function clientWith(channel: ChannelCredentials): KeyServiceClient & Disposable {
  const client = new KeyServiceClient(service.address.replace('127.0.0.1', 'localhost'), channel);
  return Object.assign(client, { [Symbol.dispose]: () => client.close() });
}

function verify(client: KeyServiceClient, bearer?: string): Promise<VerifyKeyResponse> {
  const metadata = new Metadata();
  if (bearer !== undefined) metadata.set('authorization', `Bearer ${bearer}`);
  const request = VerifyKeyRequest.fromPartial({
    credential: { kind: { $case: 'bearerToken', value: 'hm_unknown' } },
  });
  return call<VerifyKeyResponse>((done) =>
    client.verifyKey(request, metadata, { deadline: Date.now() + DEADLINE_MS }, done),
  );
}

/** How a call ends: `OK`, or the code of its error. */
async function outcomeOf(channel: ChannelCredentials, bearer?: string): Promise<string> {
  using client = clientWith(channel);
  try {
    await verify(client, bearer);
    return 'OK';
  } catch (error) {
    return status[(error as ServiceError).code];
  }
}

async function logged(text: string, after: number): Promise<void> {
  await expect.poll(() => service.output().slice(after)).toContain(text);
}

/** The names of the certificate that a new connection is shown, by its serial number. */
function presented(): Promise<string> {
  const port = Number(service.address.split(':').at(-1));
  const options = { ca: pem('ca.pem'), cert: pem('gateway.pem'), key: pem('gateway.key'), servername: 'localhost' };
  return new Promise((resolve, reject) => {
    const socket = connect({ host: '127.0.0.1', port, ...options, ALPNProtocols: ['h2'] }, () => {
      resolve(String(socket.getPeerCertificate().subject.CN));
      socket.destroy();
    });
    socket.once('error', reject);
  });
}

test.each([
  ['a certificate that the policy knows', 'gateway', undefined, 'OK'],
  ['a certificate and a token, where both are asked for', 'platform', token.token.reveal(), 'OK'],
  ['a certificate, where a token is asked for beside it', 'platform', undefined, 'UNAUTHENTICATED'],
  ['a token, with the certificate of another caller', 'gateway', token.token.reveal(), 'UNAUTHENTICATED'],
  ['a certificate that the policy knows, and a token that nobody has', 'gateway', 'krt_nobody', 'UNAUTHENTICATED'],
  ['a certificate with a name that the policy does not know', 'unnamed', undefined, 'UNAUTHENTICATED'],
  ['a certificate with two SPIFFE ids', 'two-ids', undefined, 'UNAUTHENTICATED'],
  ['a certificate that has ended', 'expired', undefined, 'UNAVAILABLE'],
  ["another CA's certificate with the right name", 'stranger', undefined, 'UNAVAILABLE'],
])('%s: %s', async (_, name, bearer, outcome) => {
  expect(await outcomeOf(having(name), bearer)).toBe(outcome);
});

test('without a certificate, or without TLS, there is no connection, whatever the token', async () => {
  expect(await outcomeOf(credentials.createSsl(pem('ca.pem')), token.token.reveal())).toBe('UNAVAILABLE');
  expect(await outcomeOf(credentials.createInsecure(), token.token.reveal())).toBe('UNAVAILABLE');
});

test('a batch is known by the same certificate', async () => {
  using client = clientWith(having('gateway'));
  const request = BatchVerifyKeysRequest.fromPartial({ requests: [{}] });
  const { results } = await call<BatchVerifyKeysResponse>((done) => client.batchVerifyKeys(request, done));
  expect(results).toHaveLength(1);
});

test('a new certificate is shown to new connections, and calls on an old one go on', async () => {
  using client = clientWith(having('gateway'));
  await verify(client);
  expect(await presented()).toBe('server');
  const before = service.output().length;
  await put('renewed');
  process.kill(service.pid, 'SIGHUP');
  await logged('taken over anew', before);
  expect(await presented()).toBe('renewed');
  // A connection that was dropped would be idle until the next call.
  expect(client.getChannel().getConnectivityState(false)).toBe(connectivityState.READY);
  await verify(client);
  expect(await outcomeOf(having('gateway'))).toBe('OK');
});

test('a caller that is taken out of the file is unknown from then on, on an open connection too', async () => {
  using client = clientWith(having('gateway'));
  await verify(client);
  let before = service.output().length;
  await writeFile(inFolder('callers.yaml'), CALLERS.replace('example.org/gateway', 'example.org/unnamed'));
  process.kill(service.pid, 'SIGHUP');
  await logged('taken over anew', before);
  await expect(verify(client)).rejects.toMatchObject({ code: status.UNAUTHENTICATED });
  expect(await outcomeOf(having('unnamed'))).toBe('OK');
  before = service.output().length;
  // Without a signal, too.
  await writeFile(inFolder('callers.yaml'), CALLERS);
  await logged('taken over anew', before);
  await verify(client);
});

test.each([
  ['callers file', () => writeFile(inFolder('callers.yaml'), 'callers: []'), 'at least one caller'],
  ['certificate', () => copyFile(join(CERTIFICATES, 'stranger.pem'), inFolder('server.pem')), 'key of the certificate'],
  ['CA file', () => writeFile(inFolder('ca.pem'), ''), 'one certificate or several as PEM'],
])('a wrong %s is not taken over, and the log says why', async (_, spoil, why) => {
  const before = service.output().length;
  await spoil();
  process.kill(service.pid, 'SIGHUP');
  await logged('the old ones stay in force', before);
  // Files are looked at every few seconds too, so one may have been met half written.
  await logged(why, before);
  expect(await outcomeOf(having('gateway'))).toBe('OK');
  expect(await outcomeOf(having('stranger'))).toBe('UNAVAILABLE');
  const spoiled = service.output().length;
  await writeFile(inFolder('callers.yaml'), CALLERS);
  await copyFile(join(CERTIFICATES, 'ca.pem'), inFolder('ca.pem'));
  await put('server');
  process.kill(service.pid, 'SIGHUP');
  await logged('taken over anew', spoiled);
});
