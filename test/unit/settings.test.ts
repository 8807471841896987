import { inspect } from 'node:util';
import { describe, expect, test } from 'vitest';

import { formatProblem } from '../../src/config/problems.js';
import { type Environment, parseSettings, type Settings } from '../../src/config/settings.js';

function settingsOf(env: Environment): Settings {
  const settings = parseSettings(env);
  if (Array.isArray(settings)) throw new Error(settings.map(formatProblem).join('\n'));
  return settings;
}

function problemsOf(env: Environment): string[] {
  const settings = parseSettings(env);
  return Array.isArray(settings) ? settings.map(formatProblem) : [];
}

const TLS = { KEYREEVE_TLS_CERT: 'cert.pem', KEYREEVE_TLS_KEY: 'key.pem' };
const ADDRESS = 'host:port, e.g. 127.0.0.1:50051 or [::1]:50051';

describe('settings', () => {
  test('of an empty environment are the documented defaults', () => {
    expect(parseSettings({})).toEqual({
      listen: { host: '127.0.0.1', port: 50051 },
      store: { kind: 'sqlite', dataDir: './data' },
      auditSink: { kind: 'file', dataDir: './data' },
      keyspacesFile: 'config/keyspaces.yaml',
      peppers: [],
      installation: 'local',
      auditBacklogMax: 1_000_000,
      insecureListen: false,
      logLevel: 'info',
      warnings: [],
    });
  });

  test('take every variable', () => {
    const settings = settingsOf({
      ...TLS,
      KEYREEVE_LISTEN: '0.0.0.0:443',
      KEYREEVE_HTTP_LISTEN: '0.0.0.0:8080',
      KEYREEVE_MONGODB_URI: 'mongodb://db-1,db-2/keyreeve?replicaSet=rs0',
      KEYREEVE_KAFKA_BROKERS: 'kafka-1:9092, [::1]:9093',
      KEYREEVE_AUDIT_TOPIC: 'audit',
      KEYREEVE_KAFKA_ALLOW_SINGLE_BROKER: 'true',
      KEYREEVE_KEYSPACES: 'k.yaml',
      KEYREEVE_CALLERS: 'c.yaml',
      KEYREEVE_INSTALLATION: 'eu-1',
      KEYREEVE_LEASE_MS: '30000',
      KEYREEVE_AUDIT_BACKLOG_MAX: '10',
      KEYREEVE_INSECURE_LISTEN: 'false',
      KEYREEVE_LOG_LEVEL: 'debug',
    });
    expect(settings).toMatchObject({
      listen: { host: '0.0.0.0', port: 443 },
      httpListen: { host: '0.0.0.0', port: 8080 },
      store: { kind: 'mongodb', leaseMs: 30_000 },
      auditSink: { kind: 'kafka', brokers: ['kafka-1:9092', '[::1]:9093'], topic: 'audit', allowSingleBroker: true },
      keyspacesFile: 'k.yaml',
      callersFile: 'c.yaml',
      tls: { certFile: 'cert.pem', keyFile: 'key.pem' },
      installation: 'eu-1',
      auditBacklogMax: 10,
      insecureListen: false,
      logLevel: 'debug',
      warnings: [],
    });
    expect(settings.store.kind === 'mongodb' && settings.store.uri.reveal()).toContain('mongodb://db-1,db-2/');
  });

  test('put the database and the audit file into the data folder', () => {
    expect(settingsOf({ KEYREEVE_DATA_DIR: '/var/lib/keyreeve' })).toMatchObject({
      store: { kind: 'sqlite', dataDir: '/var/lib/keyreeve' },
      auditSink: { kind: 'file', dataDir: '/var/lib/keyreeve' },
    });
  });

  test('count an empty variable as unset', () => {
    expect(parseSettings({ KEYREEVE_MONGODB_URI: '', KEYREEVE_LISTEN: '', KEYREEVE_PEPPERS: '' })).toEqual(
      parseSettings({}),
    );
  });

  test('have all their problems reported at once', () => {
    expect(
      problemsOf({
        KEYREEVE_LISTEN: 'foo',
        KEYREEVE_MONGODB_URI: 'postgres://keyreeve@db/keyreeve',
        KEYREEVE_KAFKA_BROKERS: 'kafka-1:9092,kafka-2',
        KEYREEVE_AUDIT_TOPIC: 'a topic',
        KEYREEVE_KAFKA_ALLOW_SINGLE_BROKER: '1',
        KEYREEVE_TLS_CERT: 'cert.pem',
        KEYREEVE_INSTALLATION: 'eu/1',
        KEYREEVE_LEASE_MS: '999',
        KEYREEVE_AUDIT_BACKLOG_MAX: '1.5',
        KEYREEVE_INSECURE_LISTEN: 'yes',
        KEYREEVE_LOG_LEVEL: 'loud',
        KEYREEVE_PEPPERS: '1:abc',
      }),
    ).toEqual([
      `KEYREEVE_LISTEN: "foo"; expected ${ADDRESS}`,
      'KEYREEVE_MONGODB_URI: [hidden]; expected mongodb://… or mongodb+srv://…',
      'KEYREEVE_KAFKA_BROKERS: "kafka-1:9092,kafka-2"; expected host:port, or several with commas between, e.g. kafka-1:9092,kafka-2:9092',
      'KEYREEVE_AUDIT_TOPIC: "a topic"; expected 1 to 249 characters of A-Z a-z 0-9 . _ -',
      'KEYREEVE_INSTALLATION: "eu/1"; expected 1 to 64 characters of A-Z a-z 0-9 . _ -',
      'KEYREEVE_PEPPERS: [hidden]; expected base64 of 32 random bytes or more in entry 1',
      'KEYREEVE_AUDIT_BACKLOG_MAX: "1.5"; expected a whole number, 1 or more',
      'KEYREEVE_LEASE_MS: "999"; expected milliseconds, 1000 to 300000',
      'KEYREEVE_KAFKA_ALLOW_SINGLE_BROKER: "1"; expected one of true, false',
      'KEYREEVE_INSECURE_LISTEN: "yes"; expected one of true, false',
      'KEYREEVE_LOG_LEVEL: "loud"; expected one of trace, debug, info, warn, error, fatal, silent',
      'KEYREEVE_TLS_KEY: missing; expected the file of the private key, as KEYREEVE_TLS_CERT is set',
    ]);
  });

  test('refuse a certificate without its key and a key without its certificate', () => {
    expect(problemsOf({ KEYREEVE_TLS_CERT: 'cert.pem' })).toEqual([
      'KEYREEVE_TLS_KEY: missing; expected the file of the private key, as KEYREEVE_TLS_CERT is set',
    ]);
    expect(problemsOf({ KEYREEVE_TLS_KEY: 'key.pem' })).toEqual([
      'KEYREEVE_TLS_CERT: missing; expected the file of the certificate, as KEYREEVE_TLS_KEY is set',
    ]);
    expect(problemsOf({ KEYREEVE_TLS_CLIENT_CA: 'ca.pem' })).toEqual([
      "KEYREEVE_TLS_CERT: missing; expected the file of the server's certificate, as KEYREEVE_TLS_CLIENT_CA is set",
    ]);
  });

  test('take a login and TLS for Kafka, and send no password as it is without TLS', () => {
    const kafka = { KEYREEVE_KAFKA_BROKERS: 'kafka:9092' };
    const login = { KEYREEVE_KAFKA_USERNAME: 'reeve', KEYREEVE_KAFKA_PASSWORD: 'hunter2' };
    const certificate = { KEYREEVE_KAFKA_CERT: 'cert.pem', KEYREEVE_KAFKA_KEY: 'key.pem' };
    const tls = { KEYREEVE_KAFKA_TLS: 'true', KEYREEVE_KAFKA_CA: 'ca.pem', ...certificate };
    const settings = settingsOf({ ...kafka, ...login, ...tls, KEYREEVE_KAFKA_SASL: 'plain' });
    expect(settings.auditSink).toMatchObject({
      tls: { caFile: 'ca.pem', client: { certFile: 'cert.pem', keyFile: 'key.pem' } },
      sasl: { mechanism: 'plain', username: 'reeve' },
    });
    expect(inspect(settings, { depth: null })).not.toContain('hunter2');
    expect(problemsOf({ ...kafka, ...login, KEYREEVE_KAFKA_SASL: 'plain' })).toEqual([
      'KEYREEVE_KAFKA_TLS: missing; expected true, or KEYREEVE_KAFKA_SASL scram-sha-512: plain sends the password as it is',
    ]);
    expect(problemsOf({ ...kafka, ...login })).toEqual([
      'KEYREEVE_KAFKA_SASL: missing; expected one of plain, scram-sha-256, scram-sha-512, as a user is set',
    ]);
    expect(problemsOf({ ...kafka, KEYREEVE_KAFKA_SASL: 'scram-sha-256' })).toEqual([
      'KEYREEVE_KAFKA_USERNAME: missing; expected the user, as KEYREEVE_KAFKA_SASL is set',
      "KEYREEVE_KAFKA_PASSWORD: missing; expected the user's password, as KEYREEVE_KAFKA_SASL is set",
    ]);
    expect(problemsOf({ ...kafka, KEYREEVE_KAFKA_CA: 'ca.pem' })).toEqual([
      'KEYREEVE_KAFKA_TLS: missing; expected true, as KEYREEVE_KAFKA_CA is set',
    ]);
  });
});

describe('peppers', () => {
  const [one, other] = [7, 8].map((byte) => Buffer.alloc(32, byte).toString('base64')) as [string, string];
  const parsed = (text: string) =>
    settingsOf({ KEYREEVE_PEPPERS: text }).peppers.map(({ version, isStandby, key }) => ({
      version,
      isStandby,
      base64: key.export().toString('base64'),
    }));

  test('are one or two, of which the last may be kept ready', () => {
    expect(parsed(`1:${one}`)).toEqual([{ version: 1, isStandby: false, base64: one }]);
    expect(parsed(`1:${one}:standby`)).toEqual([{ version: 1, isStandby: true, base64: one }]);
    expect(parsed(`3:${one}, 2147483647:${other}:standby`)).toEqual([
      { version: 3, isStandby: false, base64: one },
      { version: 2147483647, isStandby: true, base64: other },
    ]);
  });

  test.each<[string, string[]]>([
    [one, ['version:base64 or version:base64:standby as entry 1']],
    [`1:${one}:stand-by`, ['version:base64 or version:base64:standby as entry 1']],
    [`1:${one},`, ['version:base64 or version:base64:standby as entry 2']],
    [`0:${one}`, ['a version from 1 to 2147483647 in entry 1']],
    [`2147483648:${one}`, ['a version from 1 to 2147483647 in entry 1']],
    [`1:${one.slice(0, -1)}`, ['base64 of 32 random bytes or more in entry 1']],
    [`1:${one.replace('B', '*')}`, ['base64 of 32 random bytes or more in entry 1']],
    [`1:${Buffer.alloc(31, 7).toString('base64')}`, ['base64 of 32 random bytes or more in entry 1']],
    [`2:${one},1:${other}`, ['versions that rise from entry to entry']],
    [`1:${one},1:${other}`, ['versions that rise from entry to entry']],
    [`1:${one}:standby,2:${other}`, ['standby in the last entry alone']],
    [`1:${one},2:${one}`, ['another pepper in each entry']],
    [
      `x:${one},y:YWJj,1:${other}:standby`,
      [
        'a version from 1 to 2147483647 in entry 1',
        'a version from 1 to 2147483647 in entry 2',
        'base64 of 32 random bytes or more in entry 2',
        '2 entries at most',
      ],
    ],
  ])('are refused where they are not, with every problem and none of their text: case %#', (text, expected) => {
    const problems = problemsOf({ KEYREEVE_PEPPERS: text });
    expect(problems).toEqual(expected.map((one) => `KEYREEVE_PEPPERS: [hidden]; expected ${one}`));
  });

  test('show nothing of themselves', () => {
    const settings = settingsOf({ KEYREEVE_PEPPERS: `1:${one}` });
    for (const rendering of [JSON.stringify(settings), inspect(settings, { depth: null, showHidden: true })]) {
      expect(rendering).not.toContain(one.slice(0, 8));
    }
  });
});

describe('the address to listen on', () => {
  test.each([
    ['127.0.0.1:0', { host: '127.0.0.1', port: 0 }],
    ['127.9.9.9:65535', { host: '127.9.9.9', port: 65535 }],
    ['localhost:50051', { host: 'localhost', port: 50051 }],
    ['[::1]:50051', { host: '::1', port: 50051 }],
  ])('may be %s', (text, listen) => {
    expect(settingsOf({ KEYREEVE_LISTEN: text }).listen).toEqual(listen);
  });

  test.each([
    '50051',
    ':50051',
    'localhost',
    'localhost:',
    'localhost:65536',
    '::1:50051',
    '[::1]',
    '[localhost]:1',
    '300.1.1.1:1',
    '2130706433:1',
    'http://localhost:1',
    'a b:1',
    'localhost:-1',
  ])('is refused as %s', (text) => {
    expect(problemsOf({ KEYREEVE_LISTEN: text })).toEqual([`KEYREEVE_LISTEN: "${text}"; expected ${ADDRESS}`]);
  });

  const LIFTED = 'KEYREEVE_INSECURE_LISTEN=true lifts this';
  test.each([
    ['TLS and callers', {}, 'KEYREEVE_TLS_CERT and KEYREEVE_CALLERS are unset'],
    ['TLS', { KEYREEVE_CALLERS: 'c.yaml' }, 'KEYREEVE_TLS_CERT is unset'],
    ['callers', TLS, 'KEYREEVE_CALLERS is unset'],
  ])('is loopback alone without %s, unless asked for', (_, env, reason) => {
    for (const address of ['0.0.0.0:1', '[::]:1', '10.0.0.1:1', 'keyreeve.example:1', 'localhost.example:1']) {
      expect(problemsOf({ ...env, KEYREEVE_LISTEN: address })).toEqual([
        `KEYREEVE_LISTEN: "${address}"; expected a loopback address such as 127.0.0.1:50051 while ${reason}; ${LIFTED}`,
      ]);
      expect(problemsOf({ ...env, KEYREEVE_HTTP_LISTEN: address })).toEqual([
        `KEYREEVE_HTTP_LISTEN: "${address}"; expected a loopback address such as 127.0.0.1:8080 while ${reason}; ${LIFTED}`,
      ]);
      const asked = settingsOf({ ...env, KEYREEVE_LISTEN: address, KEYREEVE_INSECURE_LISTEN: 'true' });
      expect(asked.insecureListen).toBe(true);
    }
  });

  test('is free with TLS and callers', () => {
    const env = { KEYREEVE_LISTEN: '0.0.0.0:443', KEYREEVE_HTTP_LISTEN: '0.0.0.0:8080' };
    expect(problemsOf({ ...TLS, KEYREEVE_CALLERS: 'c.yaml', ...env })).toEqual([]);
  });
});

describe('a variable that nothing reads', () => {
  test('is a warning with the name that was probably meant, and its value is not shown', () => {
    const { warnings } = settingsOf({ KEYREEVE_LISTN: 'hunter2', KEYREEVE_COLOUR: 'hunter2', PATH: '/bin' });
    expect(warnings.map(formatProblem)).toEqual([
      'KEYREEVE_LISTN: unknown variable; did you mean KEYREEVE_LISTEN?',
      'KEYREEVE_COLOUR: unknown variable; nothing reads it',
    ]);
  });

  test("is none of the command's own or the tests' variables", () => {
    const names = ['SERVER', 'TOKEN', 'TOKEN_FILE', 'CA_CERT', 'TEST_MONGODB_URI', 'TEST_KAFKA_BROKERS'];
    const env = Object.fromEntries(names.map((name) => [`KEYREEVE_${name}`, 'x']));
    expect(settingsOf(env).warnings).toEqual([]);
  });

  test('stands among the problems, of which it may be the reason', () => {
    expect(problemsOf({ KEYREEVE_LISTEN: '0.0.0.0:1', KEYREEVE_INSECURE_LISTN: 'true' })).toEqual([
      expect.stringContaining('KEYREEVE_LISTEN: '),
      'KEYREEVE_INSECURE_LISTN: unknown variable; did you mean KEYREEVE_INSECURE_LISTEN?',
    ]);
  });

  test('may be one of Kafka where there are no brokers', () => {
    expect(settingsOf({ KEYREEVE_AUDIT_TOPIC: 'audit' }).warnings.map(formatProblem)).toEqual([
      'KEYREEVE_AUDIT_TOPIC: without effect; it needs KEYREEVE_KAFKA_BROKERS',
    ]);
  });
});

describe('a password', () => {
  test('in the MongoDB URI appears in no rendering of the settings', () => {
    const settings = settingsOf({ KEYREEVE_MONGODB_URI: 'mongodb://keyreeve:hunter2@db/keyreeve' });
    const renderings = [JSON.stringify(settings), inspect(settings, { depth: null, showHidden: true })];
    for (const rendering of renderings) expect(rendering).not.toContain('hunter2');
  });

  test('appears in no problem, whichever variable it was put into', () => {
    const uri = 'odd://keyreeve:hunter2@db/keyreeve';
    const names = ['LISTEN', 'MONGODB_URI', 'KAFKA_BROKERS', 'AUDIT_TOPIC', 'INSTALLATION', 'LOG_LEVEL', 'HTTP_LISTEN'];
    const problems = problemsOf(Object.fromEntries(names.map((name) => [`KEYREEVE_${name}`, uri])));
    expect(problems).toHaveLength(names.length);
    expect(problems.join('\n')).not.toContain('hunter2');
  });
});
