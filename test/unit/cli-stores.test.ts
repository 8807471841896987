/** The commands that open the service's own store. */
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { exitCodes } from '../../src/cli/exit-codes.js';
import { newPepperEntry } from '../../src/config/peppers.js';
import { sourceOf } from '../../src/keys/chain.js';
import { systemClock } from '../../src/keys/clock.js';
import { openSqliteStore } from '../../src/store/sqlite/open.js';
import { runCli } from '../support/cli.js';
import { type GuardedFolder, makeGuardedFolder } from '../support/guard.js';

let folder: GuardedFolder;
beforeAll(async () => {
  folder = await makeGuardedFolder(join(tmpdir(), 'keyreeve-stores-'));
});
afterAll(async () => {
  await folder[Symbol.asyncDispose]();
});

const open = (dataDir: string) =>
  openSqliteStore({ dataDir, source: sourceOf('local'), clock: systemClock, report: () => undefined });

describe('while the service has the store', () => {
  test.each([
    { args: ['audit', 'verify', '--store'], helps: '--file or --topic, with --against service' },
    { args: ['audit', 'verify', '--file', 'x', '--against', 'store'], helps: '--against service' },
    { args: ['peppers'], helps: 'it also logs the counts when it starts' },
    { args: ['reconcile'], helps: 'stop it first\n' },
  ])('$args is told what helps it', async ({ args, helps }) => {
    const dataDir = join(folder.path, args.join('-'));
    const store = open(dataDir);
    const { exitCode, stderr } = await runCli(args, { env: { KEYREEVE_DATA_DIR: dataDir } });
    await store[Symbol.asyncDispose]();
    expect(exitCode).toBe(exitCodes.unavailable);
    expect(stderr).toContain('if that is the service, stop it first');
    expect(stderr).toContain(helps);
    expect(stderr.includes('--against service')).toBe(args[0] === 'audit');
  });
});

describe('what a retired pepper takes along', () => {
  const peppersOf = async (...versions: number[]) => {
    const dataDir = join(folder.path, versions.join('-'));
    await open(dataDir)[Symbol.asyncDispose]();
    const peppers = versions.map((version) => newPepperEntry(version).reveal());
    const env = { KEYREEVE_DATA_DIR: dataDir, KEYREEVE_PEPPERS: peppers.join(',') };
    return (...options: string[]) => runCli(['peppers', ...options], { env });
  };

  test('is told where one can go, and only there; the JSON has counts alone', async () => {
    const told = /nothing remembers the keys that were revoked under it: never import a list of digests/;
    const peppers = await peppersOf(1, 2);
    expect(await peppers()).toMatchObject({ stderr: '', stdout: expect.stringMatching(told) as string });
    expect((await (await peppersOf(1))()).stdout).not.toMatch(told);
    expect(Object.keys(JSON.parse((await peppers('--json')).stdout) as object)).toEqual(['versions']);
  });

  test('stands in the help, with what becomes of a repeated import', async () => {
    const help = (await runCli(['peppers', '--help'])).stdout.replace(/\s+/g, ' ');
    expect(help).toContain('a revoked credential in it would come back as a new key');
    expect(help).toContain('(REQUEST_ID_REUSED): give it a new request id');
  });
});
