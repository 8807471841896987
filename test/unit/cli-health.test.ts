/** `keyreeve health`: what it asks, of whom, and what it makes of the answer. */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { type sendUnaryData, ServerCredentials, type ServerUnaryCall } from '@grpc/grpc-js';
import { expect, test } from 'vitest';

import { exitCodes } from '../../src/cli/exit-codes.js';
import type { HealthCheckResponse } from '../../src/gen/health/v1/health.js';
import {
  type HealthCheckRequest,
  HealthCheckResponse_ServingStatus as ServingStatus,
} from '../../src/gen/health/v1/health.js';
import { ListKeysResponse } from '../../src/gen/keyreeve/v1/key_service.js';
import { fakeService, type FakeService, runCli } from '../support/cli.js';
import { freePort } from '../support/free-port.js';

type Call = ServerUnaryCall<HealthCheckRequest, HealthCheckResponse>;

const file = (name: string) => fileURLToPath(new URL(`../support/certificates/${name}`, import.meta.url));
/** Of this name no certificate of the tests is for 127.0.0.1. */
const ELSEWHERE = { KEYREEVE_TLS_CERT: file('gateway.pem'), KEYREEVE_TLS_KEY: file('gateway.key') };
const organization = ['--keyspace', 'hotmetal', '--organization', 'acme'];

const health = (...args: string[]) => ['health', '--timeout', '5s', ...args];

/** A service whose process and key service are in these states. */
function serviceThatIs(
  states: Readonly<Record<string, ServingStatus>>,
  { credentials, seen }: { credentials?: ServerCredentials; seen?: (call: Call) => void } = {},
): Promise<FakeService> {
  const check = (call: Call, answer: sendUnaryData<HealthCheckResponse>) => {
    seen?.(call);
    answer(null, { status: states[call.request.service] ?? ServingStatus.UNKNOWN });
  };
  const listKeys = (_call: unknown, answer: sendUnaryData<unknown>) => answer(null, ListKeysResponse.create());
  return fakeService({ health: { check }, keys: { listKeys } }, credentials);
}

/** With a certificate that is not for this machine's loopback; who connects needs one of `ca`, if that is given. */
function tls(ca?: string): ServerCredentials {
  const [certificate, key] = ['gateway.pem', 'gateway.key'].map((name) => readFileSync(file(name)));
  if (!certificate || !key) throw new Error('no certificate');
  const pair = { cert_chain: certificate, private_key: key };
  return ServerCredentials.createSsl(ca === undefined ? null : readFileSync(file(ca)), [pair], ca !== undefined);
}

const up = { '': ServingStatus.SERVING, 'keyreeve.v1.KeyService': ServingStatus.SERVING };
const storeAway = { ...up, 'keyreeve.v1.KeyService': ServingStatus.NOT_SERVING };

test('a service that can answer is exit code 0, one that cannot is 1, and --live asks for the process alone', async () => {
  await using healthy = await serviceThatIs(up);
  await using unable = await serviceThatIs(storeAway);
  const run = (...args: string[]) => runCli(health(...args));
  expect(await run('--server', healthy.address)).toMatchObject({ exitCode: exitCodes.ok, stdout: 'SERVING\n' });
  expect(await run('--server', unable.address)).toMatchObject({ exitCode: exitCodes.no, stdout: 'NOT_SERVING\n' });
  expect(await run('--server', unable.address, '--live')).toMatchObject({ exitCode: exitCodes.ok });
});

test('a service that is not there is exit code 5', async () => {
  const run = await runCli(health('--server', `127.0.0.1:${await freePort()}`, '--timeout', '1s'));
  expect(run).toMatchObject({ exitCode: exitCodes.unavailable, stdout: '' });
});

test.each(['127.0.0.1', '0.0.0.0', '[::]'])(
  '--own asks at the port of KEYREEVE_LISTEN=%s…, on loopback',
  async (host) => {
    await using service = await serviceThatIs(up);
    const port = service.address.split(':')[1];
    // The service of this test has IPv4 alone, where `[::]` leads nowhere: what it says of that names the place.
    const env = { KEYREEVE_LISTEN: `${host}:${String(port)}`, KEYREEVE_INSECURE_LISTEN: 'true' };
    const { exitCode, stderr } = await runCli(health('--own'), { env });
    if (host === '[::]') expect(stderr).toContain(`[::1]:${String(port)}`);
    else expect(exitCode).toBe(exitCodes.ok);
  },
);

test('--own reaches a service behind TLS whatever name its certificate has, and sends it no token', async () => {
  const seen: Call[] = [];
  await using service = await serviceThatIs(up, { credentials: tls(), seen: (call) => seen.push(call) });
  const env = { ...ELSEWHERE, KEYREEVE_LISTEN: service.address, KEYREEVE_TOKEN: 'a-token' };
  expect((await runCli(health('--own'), { env })).exitCode).toBe(exitCodes.ok);
  expect(seen.map(({ metadata }) => metadata.get('authorization'))).toEqual([[]]);
  // Every other way of asking looks at the name.
  const asked = await runCli(health('--server', service.address, '--ca-cert', file('ca.pem')));
  expect(asked.exitCode).toBe(exitCodes.unavailable);
});

test('--own shows a service that asks for certificates its own, or the one that is given', async () => {
  const env = (ca: string) => ({ ...ELSEWHERE, KEYREEVE_TLS_CLIENT_CA: file(ca) });
  await using sameCa = await serviceThatIs(up, { credentials: tls('ca.pem') });
  const own = await runCli(health('--own'), { env: { ...env('ca.pem'), KEYREEVE_LISTEN: sameCa.address } });
  expect(own.exitCode).toBe(exitCodes.ok);

  await using otherCa = await serviceThatIs(up, { credentials: tls('other-ca.pem') });
  const elsewhere = { ...env('other-ca.pem'), KEYREEVE_LISTEN: otherCa.address };
  expect((await runCli(health('--own', '--timeout', '1s'), { env: elsewhere })).exitCode).toBe(exitCodes.unavailable);
  const given = { KEYREEVE_CLIENT_CERT: file('stranger.pem'), KEYREEVE_CLIENT_KEY: file('stranger.key') };
  expect((await runCli(health('--own'), { env: { ...elsewhere, ...given } })).exitCode).toBe(exitCodes.ok);
});

test('--own tells what of the settings keeps it from asking', async () => {
  const run = async (env: NodeJS.ProcessEnv, ...args: string[]) => {
    const { exitCode, stderr } = await runCli(health('--own', ...args), { env });
    expect(exitCode).toBe(exitCodes.usage);
    return stderr;
  };
  expect(await run({ KEYREEVE_LISTEN: '127.0.0.1:0' })).toContain('KEYREEVE_LISTEN');
  expect(await run({ KEYREEVE_LISTEN: '0.0.0.0:50051' })).toContain('KEYREEVE_TLS_CERT');
  expect(await run({}, '--server', '127.0.0.1:50051')).toContain('--server');
});

test('every command can show a certificate of its own, to a service that asks for one', async () => {
  const localhost = ['server.pem', 'server.key'].map((name) => readFileSync(file(name)));
  const [cert_chain = Buffer.of(), private_key = Buffer.of()] = localhost;
  const credentials = ServerCredentials.createSsl(readFileSync(file('ca.pem')), [{ cert_chain, private_key }], true);
  await using service = await serviceThatIs(up, { credentials });
  const list = ['keys', 'list', ...organization, '--server', service.address, '--ca-cert', file('ca.pem')];
  const shown = ['--client-cert', file('platform.pem'), '--client-key', file('platform.key')];

  expect(await runCli([...list, ...shown])).toMatchObject({ exitCode: exitCodes.ok, stderr: '' });
  const env = { KEYREEVE_CLIENT_CERT: file('platform.pem'), KEYREEVE_CLIENT_KEY: file('platform.key') };
  expect(await runCli(list, { env })).toMatchObject({ exitCode: exitCodes.ok });
  const without = await runCli(list);
  expect(without.exitCode).toBe(exitCodes.unavailable);
  expect(without.stderr).toContain('--client-cert');
});

test.each([
  ['half of a pair', ['--client-cert', file('platform.pem')]],
  ['a key of another certificate', ['--client-cert', file('platform.pem'), '--client-key', file('gateway.key')]],
  ['what is no certificate', ['--client-cert', file('make.sh'), '--client-key', file('gateway.key')]],
  ['a file that is not there', ['--client-cert', file('none.pem'), '--client-key', file('gateway.key')]],
])('%s is told before anything is asked, and not repeated', async (_what, shown) => {
  const { exitCode, stderr } = await runCli(['keys', 'list', ...organization, ...shown]);
  expect(exitCode).toBe(exitCodes.usage);
  expect(stderr).not.toContain('certificates/');
});
