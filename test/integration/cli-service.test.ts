/** The command as built against the service as built: a first day's work, on both stores. */
import { randomUUID } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, inject, test } from 'vitest';

import { exitCodes } from '../../src/cli/exit-codes.js';
import { runBuiltCli } from '../support/cli.js';
import { makeGuardedFolder } from '../support/guard.js';
import { type ServiceSettings, startService } from '../support/service.js';
import { TEST_TLS } from '../support/test-tls.js';

const organization = ['--keyspace', 'hotmetal', '--organization', 'acme'];
const actor = ['--actor', 'user:ada'];

const stacks: { name: string; settings: () => ServiceSettings }[] = [
  { name: 'SQLite and a file', settings: () => ({}) },
  { name: 'MongoDB and Kafka', settings: mongodbAndKafka },
];

test.for(stacks)(
  'a key is created, verified, revoked and denied, and its audit is whole: $name',
  { timeout: 60_000 },
  async ({ settings }) => {
    const chosen = settings();
    await using service = await startService(chosen);
    const env = { ...chosen, KEYREEVE_SERVER: service.address, KEYREEVE_DATA_DIR: service.dataDir };
    const run = async (args: readonly string[], stdin = '') => await runBuiltCli(args, { stdin, env });

    const created = await run(['keys', 'create', ...organization, ...actor, '--name', 'ci', '--secret-only']);
    const secret = created.stdout.trim();
    expect(secret).toMatch(/^hm_[0-9A-Za-z]{49}$/);
    expect(await run(['keys', 'verify'], secret)).toMatchObject({ exitCode: exitCodes.ok });

    const list = await run(['keys', 'list', ...organization, '--json']);
    const [key] = JSON.parse(list.stdout) as { key_id: string; display: string }[];
    expect(key?.display).toBe(`hm_****${secret.slice(-4)}`);
    const revoked = await run(['keys', 'revoke', ...organization, ...actor, '--id', key?.key_id ?? '', '--json']);
    expect(JSON.parse(revoked.stdout)).toMatchObject({
      key: {
        key_id: key?.key_id,
        state: 'REVOKED',
        revocation_reason: 'OTHER',
        revoked_by: { type: 'USER', id: 'ada' },
      },
      enforcement: { complete: true },
    });
    const again = await run(['keys', 'revoke', ...organization, ...actor, '--id', key?.key_id ?? '', '--json']);
    const [first, second] = [revoked, again].map(({ stdout }) => (JSON.parse(stdout) as { key: object }).key);
    // The use just now may have been written in between.
    expect({ ...second, last_use_time: null }).toEqual({ ...first, last_use_time: null });

    const denied = await run(['keys', 'verify', '--json'], secret);
    expect(denied.exitCode).toBe(exitCodes.no);
    expect(JSON.parse(denied.stdout)).toMatchObject({ decision: 'REVOKED', key: { key_id: key?.key_id } });
    expect((await run(['keys', 'list', ...organization])).stdout).toBe('No keys of hotmetal/acme to show.\n');

    const events = await run(['audit', 'list', ...organization, '--json']);
    expect((JSON.parse(events.stdout) as { type: string }[]).map(({ type }) => type)).toEqual([
      'keyreeve.key.created',
      'keyreeve.key.revoked',
    ]);

    expect(await service.stop()).toBe(0);
    const sources =
      chosen.KEYREEVE_KAFKA_BROKERS === undefined ? ['--file', join(service.dataDir, 'audit.jsonl')] : ['--topic'];
    for (const source of [[...sources, '--against', 'store'], ['--store']]) {
      const { exitCode, stdout, stderr } = await run(['audit', 'verify', ...source]);
      expect(stderr).toBe('');
      expect(stdout).toBe('2 events of 1 organization read: 0 faults.\nThe ends were compared with the store.\n');
      expect(exitCode).toBe(exitCodes.ok);
    }
    const seen = [created.stderr, list, revoked, denied, events].map((part) => JSON.stringify(part)).join('');
    expect(seen).not.toContain(secret);
  },
);

test('against a running service, a missing end and a missing event are found', async () => {
  await using service = await startService();
  await using folder = await makeGuardedFolder(join(tmpdir(), 'keyreeve-cli-'));
  const env = { KEYREEVE_SERVER: service.address, KEYREEVE_DATA_DIR: service.dataDir };
  for (const name of ['a', 'b', 'c']) {
    await runBuiltCli(['keys', 'create', ...organization, ...actor, '--name', name], { env });
  }
  const verify = async (lines: readonly string[], ...more: string[]) => {
    const copy = join(folder.path, 'copy.jsonl');
    await writeFile(copy, lines.map((line) => `${line}\n`).join(''));
    const args = ['audit', 'verify', '--file', copy, '--against', 'service', '--json', ...more];
    const { exitCode, stdout } = await runBuiltCli(args, { env });
    const { faults, events } = JSON.parse(stdout) as { faults: { kind: string; sequence: number }[]; events: number };
    return { exitCode, events, faults: faults.map(({ kind, sequence }) => [kind, sequence]) };
  };
  const { stdout } = await runBuiltCli(['audit', 'list', ...organization, '--json'], { env });
  const published = await untilLines(join(service.dataDir, 'audit.jsonl'), 3);
  const [first, second, third] = published;
  const { hash } = (JSON.parse(stdout) as { data: { hash: string } }[]).map(({ data }) => data)[1] ?? { hash: '' };

  expect(await verify(published)).toEqual({ exitCode: exitCodes.ok, events: 3, faults: [] });
  expect(await verify([first ?? '', second ?? ''])).toMatchObject({ exitCode: exitCodes.no, faults: [['tail', 3]] });
  expect(await verify([first ?? '', third ?? ''])).toMatchObject({ exitCode: exitCodes.no, faults: [['gap', 3]] });
  const anchored = await verify([third ?? ''], '--anchor', `hotmetal/acme:2:${hash}`);
  expect(anchored).toEqual({ exitCode: exitCodes.ok, events: 1, faults: [] });
  expect(await verify([], '--anchor', `hotmetal/acme:2:${hash}`)).toMatchObject({ faults: [['tail', 3]] });
});

test('the store of a running service is not opened a second time, and the way out is told', async () => {
  await using service = await startService();
  const env = { KEYREEVE_DATA_DIR: service.dataDir };
  const { exitCode, stderr } = await runBuiltCli(['audit', 'verify', '--store'], { env });
  expect(exitCode).toBe(exitCodes.unavailable);
  expect(stderr).toContain('stop it first, or verify what it publishes: --file or --topic, with --against service');
});

test('a store that is not there is not made by looking for it', async () => {
  await using folder = await makeGuardedFolder(join(tmpdir(), 'keyreeve-cli-'));
  const env = { KEYREEVE_DATA_DIR: join(folder.path, 'data') };
  const { exitCode } = await runBuiltCli(['audit', 'verify', '--store'], { env });
  expect(exitCode).toBe(exitCodes.unavailable);
  await expect(readFile(join(folder.path, 'data', 'keyreeve.db'))).rejects.toThrow('ENOENT');
});

test('over TLS a caller is known by the token that callers token made, and denied without it', async () => {
  await using folder = await makeGuardedFolder(join(tmpdir(), 'keyreeve-cli-'));
  const at = (name: string) => join(folder.path, name);
  const grant = ['--role', 'provisioner', '--keyspace', 'hotmetal', '--organization', 'acme', '--may-assert-actor'];
  const token = await runBuiltCli(['callers', 'token', 'platform', ...grant]);
  const line = token.stderr.split('\n').find((text) => text.includes('name: platform'));
  await writeFile(at('callers.yaml'), `callers:\n${line ?? ''}\n`);
  await writeFile(at('token'), token.stdout);
  await writeFile(at('cert.pem'), TEST_TLS.certificate);
  await writeFile(at('key.pem'), TEST_TLS.privateKey.reveal());
  await using service = await startService({
    KEYREEVE_CALLERS: at('callers.yaml'),
    KEYREEVE_TLS_CERT: at('cert.pem'),
    KEYREEVE_TLS_KEY: at('key.pem'),
  });
  const create = ['keys', 'create', ...organization, ...actor, '--server', service.address];
  const secured = [...create, '--ca-cert', at('cert.pem')];
  const byFile = await runBuiltCli([...secured, '--token-file', at('token')]);
  expect(byFile).toMatchObject({ exitCode: exitCodes.ok, stderr: '' });
  const env = { KEYREEVE_TOKEN: token.stdout.trim(), KEYREEVE_CA_CERT: at('cert.pem') };
  expect(await runBuiltCli(create, { env })).toMatchObject({ exitCode: exitCodes.ok });

  const unknown = await runBuiltCli(secured, { env: { KEYREEVE_TOKEN: `${token.stdout.trim()}x` } });
  expect(unknown.exitCode).toBe(exitCodes.denied);
  expect(unknown.stderr).toContain('CALLER_UNKNOWN');
  expect(unknown.stderr).not.toContain(token.stdout.trim());
  expect(await runBuiltCli(secured)).toMatchObject({ exitCode: exitCodes.denied });
  const elsewhere = ['keys', 'list', '--keyspace', 'metlo', '--organization', 'acme', '--server', service.address];
  expect(await runBuiltCli(elsewhere, { env })).toMatchObject({ exitCode: exitCodes.refused });
  // Neither plain text nor a certificate that nobody vouches for: no call leaves.
  for (const security of [[], ['--tls']]) {
    const { exitCode } = await runBuiltCli([...create, ...security], { env: { KEYREEVE_TOKEN: token.stdout.trim() } });
    expect(exitCode).toBe(exitCodes.unavailable);
  }
});

test('a refusal of the service names its reason and exits as a refusal', async () => {
  await using service = await startService();
  const env = { KEYREEVE_SERVER: service.address };
  const refused = async (args: string[], stdin = ''): Promise<[number | null, string | undefined]> => {
    const { exitCode, stderr } = await runBuiltCli(args, { env, stdin });
    return [exitCode, /^keyreeve: ([A-Z_]+)/.exec(stderr)?.[1]];
  };
  const metlo = ['keys', 'create', '--keyspace', 'metlo', '--organization', 'acme', ...actor];
  expect(await refused([...metlo, '--name', 'ci'])).toEqual([exitCodes.ok, undefined]);
  expect(await refused([...metlo, '--name', 'ci'])).toEqual([exitCodes.refused, 'NAME_TAKEN']);
  expect(await refused(metlo)).toEqual([exitCodes.refused, 'NAME_REQUIRED']);
  expect(await refused([...metlo, '--name', 'x', '--type', 'X'])).toEqual([exitCodes.refused, 'TYPE_INVALID']);
  const past = ['--name', 'x', '--expires', '2020-01-01T00:00:00Z'];
  expect(await refused([...metlo, ...past])).toEqual([exitCodes.refused, 'EXPIRATION_INVALID']);
  const withoutActor = ['keys', 'create', ...organization];
  expect(await refused(withoutActor)).toEqual([exitCodes.refused, 'ACTOR_REQUIRED']);
  const nowhere = ['keys', 'list', '--keyspace', 'nowhere', '--organization', 'acme'];
  expect(await refused(nowhere)).toEqual([exitCodes.refused, 'KEYSPACE_NOT_FOUND']);
  const pair = ['keys', 'verify', '--client-id', 'client_01'];
  expect(await refused(pair, 'x')).toEqual([exitCodes.refused, 'KEYSPACE_REQUIRED']);
});

test('a service that cannot start says why, a line for each problem, without a stack', async () => {
  const env = { KEYREEVE_LISTEN: 'nowhere', KEYREEVE_KEYSPACES: '/nowhere/keyspaces.yaml' };
  const { exitCode, stdout, stderr } = await runBuiltCli(['serve'], { env });
  expect(exitCode).toBe(exitCodes.usage);
  expect(stdout).toBe('');
  const lines = stderr.trimEnd().split('\n');
  expect(lines.map((line) => line.split(':').slice(0, 3).join(':'))).toEqual([
    'keyreeve: cannot start: KEYREEVE_LISTEN',
    'keyreeve: cannot start: KEYREEVE_KEYSPACES',
  ]);
});

test.for(stacks)(
  'a service does not start on a keyspaces file that contradicts stored keys, until those are revoked: $name',
  { timeout: 60_000 },
  async ({ settings }) => {
    await using folder = await makeGuardedFolder(join(tmpdir(), 'keyreeve-keyspaces-'));
    const keyspacesFile = join(folder.path, 'keyspaces.yaml');
    const declare = (name: string, prefix: string) =>
      writeFile(keyspacesFile, `keyspaces: [{ name: ${name}, prefix: ${prefix} }]`);
    await declare('shop', 'shop_');
    const chosen = { ...settings(), KEYREEVE_KEYSPACES: keyspacesFile };
    await using service = await startService(chosen);
    const key = ['--keyspace', 'shop', '--organization', 'acme', ...actor, '--name', 'ci'];
    const run = async (command: string) =>
      await runBuiltCli(['keys', command, ...key], { env: { KEYREEVE_SERVER: service.address } });
    const starting = async () =>
      await runBuiltCli(['serve'], {
        env: { ...chosen, KEYREEVE_DATA_DIR: service.dataDir, KEYREEVE_LISTEN: '127.0.0.1:0' },
      });
    expect(await run('create')).toMatchObject({ exitCode: exitCodes.ok });
    await service.stop();

    await declare('shop', 'store_');
    const changed = 'keyspace shop has prefix "store_", but unrevoked keys were made with "shop_"';
    expect(await starting()).toMatchObject({
      exitCode: exitCodes.usage,
      stderr: expect.stringContaining(changed) as unknown,
    });
    await declare('bazaar', 'bazaar_');
    const gone = 'keyspace shop is gone, but unrevoked keys of it are stored';
    expect(await starting()).toMatchObject({
      exitCode: exitCodes.usage,
      stderr: expect.stringContaining(gone) as unknown,
    });

    await declare('shop', 'shop_');
    await service.restart();
    expect(await run('revoke')).toMatchObject({ exitCode: exitCodes.ok });
    await service.stop();
    await declare('shop', 'store_');
    await service.restart();
    expect(await run('create')).toMatchObject({ exitCode: exitCodes.ok });
  },
);

function mongodbAndKafka(): ServiceSettings {
  const uri = new URL(inject('mongodbUri'));
  uri.pathname = `/cli_${randomUUID().slice(0, 8)}`;
  return {
    KEYREEVE_MONGODB_URI: uri.toString(),
    KEYREEVE_KAFKA_BROKERS: inject('kafkaBrokers').join(','),
    KEYREEVE_AUDIT_TOPIC: `cli.${randomUUID()}`,
    KEYREEVE_KAFKA_ALLOW_SINGLE_BROKER: 'true',
  };
}

/** The file's lines, once there are so many: publishing follows the answer. */
async function untilLines(path: string, count: number): Promise<string[]> {
  return await expect
    .poll(async () => (await readFile(path, 'utf8')).split('\n').slice(0, -1))
    .toHaveLength(count)
    .then(async () => (await readFile(path, 'utf8')).split('\n').slice(0, -1));
}
