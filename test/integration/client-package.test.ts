/** What the package exports, as built, where nothing else of it is: used by a program of somebody else's. */
import { cp, mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

import { runCommand } from '../support/run-command.js';
import { startService } from '../support/service.js';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const compilerOptions = {
  module: 'nodenext',
  target: 'es2022',
  lib: ['es2023', 'esnext.disposable'],
  types: ['node'],
  strict: true,
};
const PROGRAM = `
import { openClient, ServiceFault, type Verification } from 'keyreeve/client';
import { requireKey, verificationOf } from 'keyreeve/middleware';
import { createServer } from 'node:http';

await using keyreeve = openClient({ address: process.argv[2] ?? '' });
const created = await keyreeve.createKey({ keyspace: 'hygiara', organizationId: 'acme', name: 'ci', actor: { type: 'USER', id: 'ada' } });
if (!created.ok) throw new Error(\`\${created.reason}: \${created.violations.map(({ field }) => field).join()}\`);
const verification: Verification = await keyreeve.verify({ credential: created.credential });
console.log(verification.allowed ? verification.key.name : verification.reason);
const door = requireKey(keyreeve);
createServer((request, response) => void door(request, response, () => response.end(verificationOf(request)?.key.name)));
await keyreeve.verify({}, { timeoutMs: 1 }).catch((error: unknown) => console.assert(error instanceof ServiceFault));
`;

test('client and middleware need their own files, the generated ones and two packages, and bring their types', async () => {
  await using service = await startService();
  const folder = await mkdtemp(join(tmpdir(), 'keyreeve-package-'));
  try {
    const installed = join(folder, 'node_modules', 'keyreeve');
    for (const part of ['package.json', 'dist/client', 'dist/gen']) {
      await cp(join(ROOT, part), join(installed, part), { recursive: true });
    }
    for (const name of ['@grpc/grpc-js', '@bufbuild/protobuf', '@types/node']) {
      await mkdir(dirname(join(folder, 'node_modules', name)), { recursive: true });
      await symlink(join(ROOT, 'node_modules', name), join(folder, 'node_modules', name));
    }
    await writeFile(join(folder, 'package.json'), '{ "type": "module" }');
    await writeFile(join(folder, 'program.ts'), PROGRAM);
    await writeFile(join(folder, 'tsconfig.json'), JSON.stringify({ compilerOptions, files: ['program.ts'] }));
    await runCommand(process.execPath, [join(ROOT, 'node_modules/typescript/bin/tsc'), '-p', folder]);
    const { stdout } = await runCommand(process.execPath, [join(folder, 'program.js'), service.address]);
    expect(stdout).toBe('ci\n');
  } finally {
    await rm(folder, { recursive: true });
  }
});
