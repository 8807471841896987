/** What the README shows of the command beyond the first key works as it stands there. */
import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';

import { COMMAND } from '../support/cli.js';
import { makeGuardedFolder } from '../support/guard.js';
import { startService } from '../support/service.js';

const readme = await readFile(new URL('../../README.md', import.meta.url), 'utf8');

test('keys are created, rotated, updated and imported, and organizations suspended, with the commands of the README', async () => {
  await using service = await startService();
  await using folder = await makeGuardedFolder(join(tmpdir(), 'keyreeve-examples-'));
  const env = { PATH: process.env.PATH, KEYREEVE_SERVER: service.address };

  const section = /^## More of the command\n(.*?)^## /ms.exec(readme)?.[1] ?? '';
  const commands = [...section.matchAll(/^```sh\n(.*?)^```/gms)].map(([, block]) => block ?? '').join('');
  const script = commands.replaceAll('npx keyreeve', `${process.execPath} ${COMMAND}`);
  const { stdout, stderr } = await promisify(execFile)('bash', ['-eu', '-c', script], { cwd: folder.path, env });
  expect(stdout.match(/^(Created|Rotated|Updated|The old key|suspended|state|exit code|\d+ lines).*/gm)).toMatchObject([
    expect.stringMatching(/^Created key_\w+ of hygiara\/acme\.$/),
    expect.stringMatching(/^state +active$/),
    expect.stringMatching(/^Rotated key_\w+ of hygiara\/acme to key_\w+\.$/),
    expect.stringMatching(/^state +active$/),
    expect.stringMatching(/^The old key key_\w+ \(ci\) works until 20.*Z\.$/),
    expect.stringMatching(/^Updated key_\w+ of hygiara\/acme: labels, scopes\.$/),
    expect.stringMatching(/^state +active$/),
    expect.stringMatching(/^Updated key_\w+ of hygiara\/acme: it is switched off\.$/),
    expect.stringMatching(/^state +disabled$/),
    expect.stringMatching(/^suspended +no$/),
    'Updated metlo/acme.',
    expect.stringMatching(/^suspended +yes: /),
    'Updated metlo/acme.',
    expect.stringMatching(/^suspended +no$/),
    '2 lines: 1 imported, 0 already there, 1 refused.',
    'exit code 1',
  ]);
  expect(stderr).toMatch(/^line 2: DIGEST_INVALID \(digest\): /m);
}, 120_000);
