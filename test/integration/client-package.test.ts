/** What the package exports, as built, where nothing else of it is: used by a program of somebody else's. */
import { readFileSync } from 'node:fs';
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
/** The README's examples one after the other, which then say what they came to. */
const PROGRAM = [
  "const credential = 'hrdly_never_issued';",
  ...examples(),
  'console.log(verification.allowed ? verification.key.name : verification.reason, created.ok, server.listening);',
  'await keyreeve.close();',
].join('\n');

function examples(): string[] {
  const readme = readFileSync(join(ROOT, 'README.md'), 'utf8');
  const section = /^## From TypeScript\n(.*?)^## /ms.exec(readme)?.[1] ?? '';
  const blocks = [...section.matchAll(/^```ts\n(.*?)^```/gms)].map(([, code = '']) => code);
  return blocks.map((code) => code.replace("'keyreeve.example.com:50051'", "process.argv[2] ?? ''"));
}

test("the README's examples compile and run on what the package exports and two packages alone", async () => {
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
    expect(stdout.trim().split('\n')).toEqual([expect.stringMatching(/^key_/), 'MALFORMED true false']);
  } finally {
    await rm(folder, { recursive: true });
  }
});
