/** What changes of callers and certificates is taken over, whenever it changes. */
import { writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test, vi } from 'vitest';

import { type Access, digestOf, loadAccess } from '../../src/config/access.js';
import { watchAccess } from '../../src/config/watch-access.js';
import { createLog } from '../../src/log.js';
import { makeGuardedFolder } from '../support/guard.js';

const callersOf = (...names: readonly string[]) =>
  `callers:\n${names.map((name) => `  - { name: ${name}, dns_name: ${name}, roles: [verifier], keyspaces: '*', organizations: '*' }\n`).join('')}`;

test('also while the service starts: a caller that is taken out then does not stay', async () => {
  await using folder = await makeGuardedFolder(join(tmpdir(), 'keyreeve-watch-'));
  const path = join(folder.path, 'callers.yaml');
  await writeFile(path, callersOf('gateway', 'leaked'));
  const unset = (variable: string) => ({ variable, path: undefined });
  const files = {
    callers: { variable: 'KEYREEVE_CALLERS', path },
    certificate: unset('KEYREEVE_TLS_CERT'),
    privateKey: unset('KEYREEVE_TLS_KEY'),
    clientCa: unset('KEYREEVE_TLS_CLIENT_CA'),
  };
  const accessDigest = await digestOf(files);
  const access = await loadAccess(files, undefined);
  if (Array.isArray(access)) throw new Error('callers that are not taken');
  await writeFile(path, callersOf('gateway'));
  const admit = vi.fn<(access: Access) => void>();
  const log = createLog('fatal');
  const keyspaces = new Map<string, never>();
  const watching = watchAccess({ files, keyspaces, access, accessDigest, admit, log, now: () => new Date() });
  await expect.poll(() => admit.mock.calls.at(-1)?.[0].callers?.size).toBe(1);
  await watching[Symbol.asyncDispose]();
});
