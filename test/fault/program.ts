/** The failing service as plain JavaScript, of this source tree or of one with a bug in it. */
import { cpSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';

import { makeGuardedFolder } from '../support/guard.js';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const OWN = ['failing-service.ts', 'fail-points.ts'].map((name) => join('test', 'fault', name));

/** A text of the source, which must be there exactly once, and what stands in its place. */
export interface Replacement {
  /** From the root of the repository. */
  readonly file: string;
  readonly from: string;
  readonly to: string;
}

export interface Program extends AsyncDisposable {
  /** What node runs. */
  readonly path: string;
}

/**
 * Translates each file by itself, without a look at types: a bug need not be well typed.
 * @throws Error where a text to replace is not there, or more than once
 */
export async function buildProgram(replacements: readonly Replacement[] = []): Promise<Program> {
  const folder = await makeGuardedFolder(join(tmpdir(), 'keyreeve-fault-'));
  try {
    for (const [file, text] of changedSources(replacements)) {
      const target = join(folder.path, file.replace(/\.ts$/, '.js'));
      mkdirSync(dirname(target), { recursive: true });
      writeFileSync(target, ts.transpileModule(text, { compilerOptions, fileName: file }).outputText);
    }
    cpSync(join(ROOT, 'src', 'gen', 'descriptors.binpb'), join(folder.path, 'src', 'gen', 'descriptors.binpb'));
    cpSync(join(ROOT, 'package.json'), join(folder.path, 'package.json'));
    symlinkSync(join(ROOT, 'node_modules'), join(folder.path, 'node_modules'));
  } catch (error) {
    await folder[Symbol.asyncDispose]();
    throw error;
  }
  return {
    path: join(folder.path, 'test', 'fault', 'failing-service.js'),
    [Symbol.asyncDispose]: () => folder[Symbol.asyncDispose](),
  };
}

/**
 * The sources with the texts replaced, by their paths.
 * @throws Error where a text to replace is not there, or more than once
 */
export function changedSources(replacements: readonly Replacement[]): Map<string, string> {
  const names = readdirSync(join(ROOT, 'src'), { recursive: true, encoding: 'utf8' });
  const files = [...names.map((name) => join('src', name)).filter((name) => name.endsWith('.ts')), ...OWN];
  const sources = new Map(files.map((file) => [file, readFileSync(join(ROOT, file), 'utf8')]));
  for (const { file, from, to } of replacements) {
    const parts = sources.get(file)?.split(from) ?? [];
    if (parts.length !== 2) throw new Error(`${file} has ${Math.max(0, parts.length - 1)} times: ${from}`);
    sources.set(file, parts.join(to));
  }
  return sources;
}

const compilerOptions: ts.CompilerOptions = {
  target: ts.ScriptTarget.ES2023,
  module: ts.ModuleKind.ESNext,
  verbatimModuleSyntax: true,
  esModuleInterop: true,
};
