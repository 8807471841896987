/** What `npm pack` makes, installed in an empty folder and used from there, as by somebody who has nothing else of it. */
import { readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { type GuardedFolder, makeGuardedFolder } from '../support/guard.js';
import { runCommand } from '../support/run-command.js';
import { type Service, startService } from '../support/service.js';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const COMPILER_OPTIONS = {
  module: 'nodenext',
  target: 'es2022',
  lib: ['es2023', 'esnext.disposable'],
  types: ['node'],
  strict: true,
};

/** The README's examples one after the other, which then say what they came to. */
const EXAMPLES = [
  "const credential = 'hrdly_never_issued';",
  ...examplesOf('From TypeScript').map((code) => code.replace("'keyreeve.example.com:50051'", "process.argv[2] ?? ''")),
  'console.log(verification.allowed ? verification.key.name : verification.reason, created.ok, server.listening);',
  'await keyreeve.close();',
].join('\n');

const LIFE_OF_A_KEY = `
import { openClient } from 'keyreeve/client';

await using keyreeve = openClient({ address: process.argv[2] ?? '' });
const acme = { keyspace: 'hotmetal', organizationId: 'acme', actor: { type: 'USER', id: 'ada' } } as const;
const created = await keyreeve.createKey({ ...acme, name: 'CI' });
if (!created.ok) throw new Error(created.reason);
const { key, credential } = created;
const before = await keyreeve.verify({ credential });
const revoked = await keyreeve.revokeKey({ ...acme, selector: { keyId: key.keyId }, reason: 'UNUSED' });
const after = await keyreeve.verify({ credential });
console.log(before.allowed, revoked.ok && revoked.enforcement.complete, after.allowed || after.reason);
`;

interface Packed {
  readonly filename: string;
  readonly size: number;
  readonly unpackedSize: number;
  readonly files: readonly { readonly path: string }[];
}

let folder: GuardedFolder;
let packed: Packed;
let service: Service;
const at = (...path: string[]) => join(folder.path, ...path);
const installed = (...path: string[]) => at('node_modules', 'keyreeve', ...path);
const node = (...args: string[]) => runCommand(process.execPath, args);

beforeAll(async () => {
  folder = await makeGuardedFolder(join(tmpdir(), 'keyreeve-package-'));
  // Built by the same script that packing runs, and in use by other tests: it is not built anew beneath them.
  const pack = ['pack', '--json', '--ignore-scripts', '--pack-destination', folder.path];
  const { stdout } = await runCommand('npm', pack, { cwd: ROOT });
  [packed] = JSON.parse(stdout) as [Packed];
  await writeFile(at('package.json'), '{ "type": "module" }');
  const install = ['install', '--prefer-offline', '--omit=dev', '--no-audit', '--no-fund', `./${packed.filename}`];
  await runCommand('npm', install, { cwd: folder.path });
  service = await startService(
    { KEYREEVE_DATA_DIR: '' },
    { program: [at('node_modules', '.bin', 'keyreeve'), 'serve'], cwd: folder.path },
  );
});
afterAll(async () => {
  await service[Symbol.asyncDispose]();
  await folder[Symbol.asyncDispose]();
});

describe('the package', () => {
  test('is built by packing it as it is built for its tests', () => {
    const { scripts } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as {
      scripts: Record<string, string>;
    };
    expect(scripts.prepack).toBe(scripts.pretest);
  });

  test('holds the program, the types of what it exports, two examples of files, and nothing that nobody reaches', () => {
    const program = reachedFrom(['dist/cli/main.js', 'dist/client/client.js', 'dist/client/middleware.js']);
    const types = reachedFrom(['dist/client/client.d.ts', 'dist/client/middleware.d.ts']);
    const paths = packed.files.map(({ path }) => path);
    expect(paths).toEqual(expect.arrayContaining([...program, ...types]));

    // What a file of types alone compiles to is there for whoever looks for it.
    const isEmpty = (path: string) => readFileSync(join(ROOT, path), 'utf8') === 'export {};\n';
    const isExported = (path: string) =>
      /^dist\/(client|gen\/keyreeve\/v1|gen\/google\/protobuf)\/[^/]*\.d\.ts$/.test(path);
    const reached = new Set([...program, ...types]);
    const others = paths.filter((path) => !reached.has(path) && !isExported(path) && !isEmpty(path));
    expect(others.sort()).toEqual([
      'LICENSE',
      'README.md',
      'config/callers.example.yaml',
      'config/keyspaces.yaml',
      'dist/gen/descriptors.binpb',
      'package.json',
    ]);
    // What it holds is text, and grows with the program alone.
    expect(packed.size).toBeLessThan(500_000);
    expect(packed.unpackedSize).toBeLessThan(2_000_000);
  });

  test('names no file that it lacks', async () => {
    const mapped = packed.files.filter(({ path }) =>
      readFileSync(installed(path), 'utf8').includes('//# sourceMappingURL='),
    );
    expect(mapped).toEqual([]);
    const { bin, exports } = JSON.parse(await readFile(installed('package.json'), 'utf8')) as {
      bin: Record<string, string>;
      exports: Record<string, string | Record<string, string>>;
    };
    const named = Object.values({ ...bin, ...exports }).flatMap((value) =>
      typeof value === 'string' ? value : Object.values(value),
    );
    for (const path of named) expect((await stat(installed(path))).isFile(), path).toBe(true);
  });
});

describe('installed in an empty folder, the command', () => {
  test('serves there, with the example keyspaces, and says so', async () => {
    expect(service.output()).toMatch(
      /"keyspaces":"[^"]*keyreeve\/config\/keyspaces\.yaml".*"no config\/keyspaces\.yaml/,
    );
    expect((await readdir(at('data'))).sort()).toEqual(expect.arrayContaining(['audit.jsonl', 'keyreeve.db']));
  });

  test('creates a key by npx', async () => {
    const create = ['keys', 'create', '--keyspace', 'hygiara', '--organization', 'acme', '--actor', 'user:ada'];
    const command = ['--no', '--', 'keyreeve', ...create, '--name', 'ci', '--server', service.address];
    const { stdout } = await runCommand('npx', command, { cwd: folder.path });
    expect(stdout).toMatch(/^Created key_\w+ of hygiara\/acme\.$/m);
  });
});

describe('installed in an empty folder, the client', () => {
  beforeAll(async () => {
    await writeFile(at('examples.ts'), EXAMPLES);
    await writeFile(at('life.ts'), LIFE_OF_A_KEY);
    const files = ['examples.ts', 'life.ts'];
    await writeFile(at('tsconfig.json'), JSON.stringify({ compilerOptions: COMPILER_OPTIONS, files }));
    await node(join(ROOT, 'node_modules/typescript/bin/tsc'), '-p', folder.path);
  });

  test('compiles with and runs the README’s examples', async () => {
    const { stdout } = await node(at('examples.js'), service.address);
    expect(stdout.trim().split('\n')).toEqual([expect.stringMatching(/^key_/), 'MALFORMED true false']);
  });

  test('creates, verifies and revokes a key, and loads none of the service, nor of what that depends on', async () => {
    const coverage = at('coverage');
    const { stdout } = await runCommand(process.execPath, [at('life.js'), service.address], {
      env: { ...process.env, NODE_V8_COVERAGE: coverage },
    });
    expect(stdout).toBe('true true REVOKED\n');

    // What V8 counted is every file that was loaded.
    const [report = ''] = await readdir(coverage);
    const { result } = JSON.parse(await readFile(join(coverage, report), 'utf8')) as { result: { url: string }[] };
    const loaded = result.flatMap(({ url }) => (url.startsWith('file:') ? relative(at(), fileURLToPath(url)) : []));
    const packages = ['@grpc/grpc-js', '@bufbuild/protobuf'].flatMap(withDependencies);
    const known = ['life.js', 'node_modules/keyreeve/dist/client/', 'node_modules/keyreeve/dist/gen/'];
    const allowed = [...known, ...packages.map((name) => `node_modules/${name}/`)];
    expect(loaded).toContain('node_modules/keyreeve/dist/client/client.js');
    expect(loaded.filter((file) => !allowed.some((place) => file.startsWith(place)))).toEqual([]);
  });
});

/** These files of the build and all that they import, type by type where they are declarations. */
function reachedFrom(entries: readonly string[]): string[] {
  const reached = new Set<string>();
  const waiting = [...entries];
  for (let file = waiting.pop(); file !== undefined; file = waiting.pop()) {
    if (reached.has(file)) continue;
    reached.add(file);
    const isTypes = file.endsWith('.d.ts');
    for (const { fileName: name } of ts.preProcessFile(readFileSync(join(ROOT, file), 'utf8'), true, true)
      .importedFiles) {
      if (!name.startsWith('.')) continue;
      const path = relative(ROOT, resolve(ROOT, dirname(file), name));
      waiting.push(isTypes ? path.replace(/\.js$/, '.d.ts') : path);
    }
  }
  return [...reached];
}

/** A package that is installed, and those that it needs. */
function withDependencies(name: string): string[] {
  const { dependencies = {} } = JSON.parse(readFileSync(at('node_modules', name, 'package.json'), 'utf8')) as {
    dependencies?: Record<string, string>;
  };
  return [name, ...Object.keys(dependencies).flatMap(withDependencies)];
}

function examplesOf(heading: string): string[] {
  const readme = readFileSync(join(ROOT, 'README.md'), 'utf8');
  const section = new RegExp(`^## ${heading}\n(.*?)^## `, 'ms').exec(readme)?.[1] ?? '';
  return [...section.matchAll(/^```ts\n(.*?)^```/gms)].map(([, code = '']) => code);
}
