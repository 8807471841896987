import { expect, test } from 'vitest';

import { parseActor, parseCount, parseLabel, parseSequence, toLabels } from '../../src/cli/arguments.js';
import { parseAnchor } from '../../src/cli/commands/audit-verify.js';
import { UsageFault } from '../../src/cli/faults.js';
import { parseDurationMs, parseTime, toDuration, toIso } from '../../src/cli/output/times.js';
import { parseServer, toConnection } from '../../src/cli/service/connection.js';
import { isLoopback } from '../../src/config/address.js';
import { ActorType } from '../../src/gen/keyreeve/v1/actor.js';

test.each([
  ['user:ada', { type: ActorType.USER, id: 'ada' }],
  ['service:billing', { type: ActorType.SERVICE, id: 'billing' }],
  ['api_key:key_01', { type: ActorType.API_KEY, id: 'key_01' }],
  ['user:auth0|a:b', { type: ActorType.USER, id: 'auth0|a:b' }],
])('an actor %s is read, and only its first colon separates', (text, actor) => {
  expect(parseActor(text)).toEqual(actor);
});

test.each(['', 'ada', 'user:', ':ada', 'system:keyreeve', 'USER:ada', 'constructor:x', '__proto__:x'])(
  'an actor %j is a usage fault',
  (text) => {
    expect(() => parseActor(text)).toThrow(UsageFault);
  },
);

test('a label may hold an equals sign and be empty, but needs a key, and each key once', () => {
  expect(parseLabel('team=a=b')).toEqual(['team', 'a=b']);
  expect(parseLabel('team=')).toEqual(['team', '']);
  expect(() => parseLabel('=x')).toThrow(UsageFault);
  expect(() => parseLabel('team')).toThrow(UsageFault);
  expect(() => toLabels([parseLabel('a=1'), parseLabel('a=2')])).toThrow(UsageFault);
});

test.each([
  ['2027-01-01T00:00:00Z', '2027-01-01T00:00:00.000Z'],
  ['2027-01-01T02:00:00.125+02:00', '2027-01-01T00:00:00.125Z'],
  ['1969-12-31T23:59:59.900Z', '1969-12-31T23:59:59.900Z'],
])('the time %s is read to the millisecond', (text, expected) => {
  expect(toIso(parseTime(text))).toBe(expected);
});

test.each(['2027-01-01', '2027-01-01T00:00:00', '2027-02-30T00:00:00Z', 'tomorrow', '1798761600', ''])(
  'the time %j, which has no zone or no place in the calendar, is a usage fault',
  (text) => {
    expect(() => parseTime(text)).toThrow(UsageFault);
  },
);

test('durations are read as the settings read them, and nothing is no duration', () => {
  expect(toDuration(parseDurationMs('30d'))).toEqual({ seconds: 2_592_000n, nanos: 0 });
  expect(toDuration(parseDurationMs('1500ms'))).toEqual({ seconds: 1n, nanos: 500_000_000 });
  for (const text of ['0', '0s', '-1d', '30', 'd', '1.5h', '']) {
    expect(() => parseDurationMs(text), text).toThrow(UsageFault);
  }
});

test('counts and sequences are whole numbers', () => {
  expect(parseCount('1')).toBe(1);
  expect(parseSequence('0')).toBe(0n);
  for (const text of ['0', '-1', '1.5', '1e3', '', '0x10']) expect(() => parseCount(text), text).toThrow(UsageFault);
  for (const text of ['-1', '1.5', '', ' 1']) expect(() => parseSequence(text), text).toThrow(UsageFault);
});

test.each([
  ['127.0.0.1:50051', { host: '127.0.0.1', port: 50_051 }],
  ['[::1]:1', { host: '::1', port: 1 }],
  ['keyreeve.example.com:443', { host: 'keyreeve.example.com', port: 443 }],
  ['keyreeve.example.com.:443', { host: 'keyreeve.example.com.', port: 443 }],
])('the address %s is read', (text, address) => {
  expect(parseServer(text)).toEqual(address);
});

test.each([
  '',
  'localhost',
  'localhost:',
  ':1',
  'localhost:0',
  'localhost:65536',
  '::1:1',
  '[x]:1',
  '300.1.1.1:1',
  'http://a:1',
  'a b:1',
])('the address %j is a usage fault', (text) => {
  expect(() => parseServer(text)).toThrow(UsageFault);
});

test('plain text is the default on loopback alone', async () => {
  const kindAt = async (host: string, options = {}): Promise<string> => {
    const connection = await toConnection({ server: { host, port: 1 }, timeout: 1, ...options }, terminalWith({}));
    return connection.security.kind;
  };
  for (const host of ['127.0.0.1', '127.9.9.9', '::1', 'localhost']) {
    expect(isLoopback({ host })).toBe(true);
    expect(await kindAt(host)).toBe('plaintext');
    expect(await kindAt(host, { tls: true })).toBe('tls');
  }
  for (const host of ['10.0.0.1', '::', '0.0.0.0', 'keyreeve.example.com', 'localhost.example.com']) {
    expect(await kindAt(host), host).toBe('tls');
    expect(await kindAt(host, { insecure: true }), host).toBe('plaintext');
  }
});

test('an anchor names an event, also of an organization with colons in its id', () => {
  const hash = 'a1'.repeat(32);
  expect(parseAnchor(`metlo/eu:acme:1:12:${hash}`)).toEqual({
    organization: { keyspace: 'metlo', organizationId: 'eu:acme:1' },
    place: { sequence: 12, hash },
  });
  for (const text of [
    '',
    `metlo:12:${hash}`,
    `metlo/acme:0:${hash}`,
    `metlo/acme:x:${hash}`,
    `metlo/acme:1:${hash}0`,
  ]) {
    expect(() => parseAnchor(text), text).toThrow(UsageFault);
  }
});

test('a file of certificates that holds none is a usage fault, and no connection that trusts nobody', async () => {
  const refused = toConnection({ timeout: 1, caCert: 'package.json' }, terminalWith({}));
  await expect(refused).rejects.toThrow(new UsageFault('the file with the certificates: expected certificates as PEM'));
});

test('a token in a variable and one in a file leave open which is meant, unless the command line says', async () => {
  const env = { KEYREEVE_TOKEN: 'one', KEYREEVE_TOKEN_FILE: 'package.json' };
  await expect(toConnection({ timeout: 1 }, terminalWith(env))).rejects.toThrow(
    'KEYREEVE_TOKEN and KEYREEVE_TOKEN_FILE are both set: unset one',
  );
});

test('a token that no header can carry is refused without being repeated', async () => {
  const refused = toConnection({ timeout: 1 }, terminalWith({ KEYREEVE_TOKEN: 'canary\nof two lines' }));
  await expect(refused).rejects.toThrow(new UsageFault('KEYREEVE_TOKEN: expected one token of printable ASCII'));
});

function terminalWith(env: NodeJS.ProcessEnv): Parameters<typeof toConnection>[1] {
  return { env, stdin: process.stdin, stdout: process.stdout, stderr: process.stderr };
}
