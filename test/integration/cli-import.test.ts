/** keys import as built against the service as built. */
import { createHash, randomUUID } from 'node:crypto';
import { chmod, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, inject, test } from 'vitest';

import { exitCodes } from '../../src/cli/exit-codes.js';
import { runBuiltCli, startCli } from '../support/cli.js';
import { type GuardedFolder, makeGuardedFolder } from '../support/guard.js';
import { type Service, type ServiceSettings, startService } from '../support/service.js';

/** The one that HookDeploy's documentation shows. */
const DOCUMENTED = 'hd_live_a1b2c3d4e5f6g7h8i9j0k1l2m3n4o5p6';
const hookdeploy = ['--keyspace', 'hookdeploy', '--organization', 'acme'];
const actor = ['--actor', 'user:ada', '--permission', 'api_keys.manage'];

/** Of lines more than one request holds, and fewer where each waits for the disk. */
const stacks: { name: string; count: number; settings: () => ServiceSettings }[] = [
  { name: 'SQLite', count: 600, settings: () => ({}) },
  { name: 'MongoDB', count: 100, settings: mongodb },
];

let folder: GuardedFolder;
beforeAll(async () => {
  folder = await makeGuardedFolder(join(tmpdir(), 'keyreeve-import-'));
});
afterAll(async () => {
  await folder[Symbol.asyncDispose]();
});

test.for(stacks)(
  'of $count lines all good ones are imported past a broken one, work, and are not imported twice: $name',
  { timeout: 240_000 },
  async ({ count, settings }) => {
    await using service = await startService(settings());
    const tokens = [DOCUMENTED, ...Array.from({ length: count - 1 }, newLegacyToken)];
    const lines = tokens.map((token, at) => JSON.stringify({ digest: sha256(token), name: `key ${at + 1}` }));
    const broken = count / 2;
    lines[broken - 1] = `{"token":"${tokens[broken - 1] ?? ''}"`;
    const file = await write(lines, 0o600);

    const first = await importFile(service, file);
    expect(first.exitCode).toBe(exitCodes.no);
    expect(first.stderr).toBe(`line ${broken}: LINE_INVALID: the line is not JSON\n`);
    // What a request had done that a slow machine broke off, is there already when it is repeated.
    const counts = /^\d+ lines: (\d+) imported, (\d+) already there, 1 refused\.\n$/.exec(first.stdout)?.slice(1);
    expect(counts?.reduce((sum, some) => sum + Number(some), 0)).toBe(count - 1);
    for (const at of [0, broken - 2, broken, count - 1])
      expect(await verify(service, tokens[at] ?? '')).toBe(exitCodes.ok);
    expect(await verify(service, tokens[broken - 1] ?? '')).toBe(exitCodes.no);

    const again = await importFile(service, file);
    expect(again.stdout).toBe(`${count} lines: 0 imported, ${count - 1} already there, 1 refused.\n`);
    expect(await countKeys(service)).toBe(count - 1);
  },
);

test('what the service refuses of a line is told with its reason, and the rest goes on', async () => {
  await using service = await startService();
  const [one, other] = [newLegacyToken(), newLegacyToken()];
  const elsewhere = await write([JSON.stringify({ digest: sha256(one), name: 'a', organization: 'other' })]);
  await run(service, ['--keyspace', 'hookdeploy', '--file', elsewhere]);
  const lines = [
    { digest: sha256(one), name: 'taken' },
    { digest: sha256(other) },
    { digest: sha256(other), name: 'ahead', create_time: '9000-01-01T00:00:00Z' },
    { token: 'hd_live_short', name: 'of no form' },
    { digest: sha256(other), name: 'good', last_use_time: '2026-01-02T03:04:05Z', disabled: true },
  ];
  const { exitCode, stdout, stderr } = await importFile(
    service,
    await write(
      lines.map((line) => JSON.stringify(line)),
      0o600,
    ),
    '--json',
  );
  expect(exitCode).toBe(exitCodes.no);
  expect(stderr.match(/^line \d+: [A-Z_]+/gm)).toEqual([
    'line 1: DIGEST_TAKEN',
    'line 2: NAME_REQUIRED',
    'line 3: EXPIRATION_INVALID',
    'line 4: DIGEST_INVALID',
  ]);
  const told = stdout
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as object);
  expect(told).toHaveLength(5);
  expect(told[4]).toMatchObject({
    line: 5,
    outcome: 'IMPORTED',
    key: { name: 'good', last_use_time: '2026-01-02T03:04:05.000Z', state: 'DISABLED' },
  });
});

test('a label of an odd name is imported, or refused with field and rule, as keys create does', async () => {
  await using service = await startService();
  const create = ['keys', 'create', ...hookdeploy, ...actor, '--json'];
  for (const name of ['__proto__', 'constructor', 'toString', 'valueof']) {
    const label = ['--name', `created ${name}`, '--label', `${name}=x`];
    const created = await runBuiltCli([...create, ...label], { env: { KEYREEVE_SERVER: service.address } });
    const line = `{"digest":"${sha256(newLegacyToken())}","name":"imported ${name}","labels":{"${name}":"x"}}`;
    const imported = await importFile(service, await write([line]), '--json');
    if (['__proto__', 'toString'].includes(name)) {
      const [, refusal] = /^keyreeve: (LABELS_INVALID \(labels\): .*)$/m.exec(created.stderr) ?? [];
      expect(refusal).toBeDefined();
      expect(imported.stderr).toContain(`line 1: ${refusal ?? ''}\n`);
    } else {
      const told = [created, imported].map(({ stdout }) => JSON.parse(stdout) as { key: object });
      expect(told).toMatchObject([{ key: { labels: { [name]: 'x' } } }, { key: { labels: { [name]: 'x' } } }]);
    }
  }
});

test('a file with secrets that others may open is refused whole; for its owner alone it is imported', async () => {
  await using service = await startService();
  const token = newLegacyToken();
  const file = await write([JSON.stringify({ token, name: 'ci' })], 0o644);
  const refused = await importFile(service, file);
  expect(refused.exitCode).toBe(exitCodes.usage);
  expect(refused.stderr).toContain('chmod 600');
  expect(refused.stdout + refused.stderr).not.toContain(token);
  expect(await verify(service, token)).toBe(exitCodes.no);
  await chmod(file, 0o600);
  expect(await importFile(service, file)).toMatchObject({ exitCode: exitCodes.ok, stderr: '' });
  expect(await verify(service, token)).toBe(exitCodes.ok);
});

/** So many that the import is under way when the service is killed, also where this process is late. */
const LINES = 4000;

test('a service killed in the middle: the import says where to go on, or waits, and every key is there once', async () => {
  await using service = await startService();
  const lines = Array.from({ length: LINES }, (_, at) =>
    JSON.stringify({ digest: sha256(newLegacyToken()), name: `key ${at}` }),
  );
  const file = await write(lines);
  const args = ['keys', 'import', ...hookdeploy, ...actor, '--file', file, '--server', service.address];

  const impatient = startCli([...args, '--json', '--retry-for', '0']);
  await new Promise((resolve) => impatient.child.stdout.once('data', resolve));
  await service.kill();
  const brokenOff = await impatient.ended;
  expect(brokenOff.exitCode).toBe(exitCodes.unavailable);
  const [, from] = /go on with --from-line (\d+), or run it again from the start/.exec(brokenOff.stderr) ?? [];
  expect(brokenOff.stdout.trimEnd().split('\n')).toHaveLength(Number(from) - 1);

  await service.restart();
  const patient = startCli([...args, '--json', '--from-line', from ?? '', '--retry-for', '60s']);
  await new Promise((resolve) => patient.child.stdout.once('data', resolve));
  await service.kill();
  await service.restart();
  const { exitCode, stdout } = await patient.ended;
  expect(exitCode).toBe(exitCodes.ok);
  expect(stdout.trimEnd().split('\n')).toHaveLength(LINES - Number(from) + 1);
  expect(await countKeys(service)).toBe(LINES);
}, 180_000);

function mongodb(): ServiceSettings {
  const uri = new URL(inject('mongodbUri'));
  uri.pathname = `/cli_${randomUUID().slice(0, 8)}`;
  return { KEYREEVE_MONGODB_URI: uri.toString() };
}

/** As HookDeploy made them before: lower case, no checksum. */
function newLegacyToken(): string {
  return `hd_live_${randomUUID().replaceAll('-', '')}`;
}

function sha256(token: string): string {
  return createHash('sha256').update(token).digest('hex');
}

async function write(lines: readonly string[], mode = 0o644): Promise<string> {
  const path = join(folder.path, randomUUID());
  await writeFile(path, lines.map((line) => `${line}\n`).join(''));
  await chmod(path, mode);
  return path;
}

function run({ address }: Service, args: readonly string[]): ReturnType<typeof runBuiltCli> {
  return runBuiltCli(['keys', 'import', ...args, ...actor], { env: { KEYREEVE_SERVER: address } });
}

function importFile(service: Service, file: string, ...options: string[]): ReturnType<typeof runBuiltCli> {
  return run(service, [...hookdeploy, '--file', file, ...options]);
}

async function verify({ address }: Service, token: string): Promise<number | null> {
  const env = { KEYREEVE_SERVER: address };
  return (await runBuiltCli(['keys', 'verify', '--keyspace', 'hookdeploy'], { stdin: token, env })).exitCode;
}

async function countKeys({ address }: Service): Promise<number> {
  const { stdout } = await runBuiltCli(['keys', 'list', ...hookdeploy, '--json'], {
    env: { KEYREEVE_SERVER: address },
  });
  return (JSON.parse(stdout) as object[]).length;
}
