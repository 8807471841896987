import { writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';

import { exitCodes } from '../../src/cli/exit-codes.js';
import { runCli } from '../support/cli.js';
import { makeGuardedFolder } from '../support/guard.js';

test('config check counts what is sound, and tells of variables that nothing reads', async () => {
  const run = await runCli(['config', 'check'], { env: { KEYREEVE_LISTN: 'x' } });
  expect(run.exitCode).toBe(exitCodes.ok);
  expect(run.stdout).toMatch(/^ok: 5 keyspaces, /);
  expect(run.stderr).toMatch(/^warning: KEYREEVE_LISTN: .*KEYREEVE_LISTEN/);
});

test('config check tells every problem of settings and files on a line of its own', async () => {
  await using folder = await makeGuardedFolder(join(tmpdir(), 'keyreeve-cli-'));
  const callers = join(folder.path, 'callers.yaml');
  await writeFile(callers, 'callers:\n  - { name: a b, roles: [king] }\n');
  const missing = join(folder.path, 'missing.yaml');
  const args = ['config', 'check', '--callers', callers, '--keyspaces', missing];
  const run = await runCli(args, { env: { KEYREEVE_LISTEN: 'x' } });
  expect(run.exitCode).toBe(exitCodes.no);
  expect(run.stdout).toBe('');
  const lines = run.stderr.trimEnd().split('\n');
  for (const part of ['KEYREEVE_LISTEN', 'KEYREEVE_KEYSPACES', 'callers[0].name', 'callers[0].roles[0]']) {
    expect(
      lines.filter((line) => line.includes(part)),
      part,
    ).toHaveLength(1);
  }
});
