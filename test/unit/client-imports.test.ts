/** The client stands alone: whoever imports it loads no part of the service. */
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';
import { expect, test } from 'vitest';

const SOURCE = fileURLToPath(new URL('../../src', import.meta.url));
const ENTRIES = ['client/client.ts', 'client/middleware.ts'];
const OWN = /^(client|gen)\//;
const PACKAGES = ['@grpc/grpc-js', '@bufbuild/protobuf/wire'];

/** Every file that is reached from these, for its types too, and what each names that is no file. */
function walk(entries: readonly string[]): { files: Set<string>; packages: Map<string, string> } {
  const files = new Set<string>();
  const packages = new Map<string, string>();
  const waiting = [...entries];
  for (let file = waiting.pop(); file !== undefined; file = waiting.pop()) {
    if (files.has(file)) continue;
    files.add(file);
    const text = readFileSync(resolve(SOURCE, file), 'utf8');
    for (const { fileName: name } of ts.preProcessFile(text, true, true).importedFiles) {
      if (name.startsWith('.')) {
        waiting.push(relative(SOURCE, resolve(SOURCE, dirname(file), name.replace(/\.js$/, '.ts'))));
      } else packages.set(name, file);
    }
  }
  return { files, packages };
}

test('the client imports its own files, the generated messages and two packages, and nothing else', () => {
  const { files, packages } = walk(ENTRIES);
  expect([...files].filter((file) => !OWN.test(file))).toEqual([]);
  const named = [...packages.keys()].filter((name) => !name.startsWith('node:'));
  expect(named.sort()).toEqual([...PACKAGES].sort());
});

test('the client holds no file that nobody reaches', () => {
  const reached = [...walk(ENTRIES).files].filter((file) => file.startsWith('client/'));
  expect(reached.sort()).toEqual(readdirSync(resolve(SOURCE, 'client')).map((file) => `client/${file}`));
});
