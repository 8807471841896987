/** The files that settings name: read, or what is wrong with them told by their variable. */
import { readFile, stat } from 'node:fs/promises';

import type { Problem } from './problems.js';
import type { NamedFile } from './settings.js';

/** Undefined where none is named. */
export async function readNamed(file: NamedFile): Promise<string | undefined | Problem[]> {
  if (file.path === undefined) return undefined;
  try {
    return await readFile(file.path, 'utf8');
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : String(error);
    return [fault(file, `a file that can be read (${code})`)];
  }
}

/** Whether something lies there; what cannot be told, for lack of a right, does. */
export async function isThere(path: string): Promise<boolean> {
  return await stat(path).then(
    () => true,
    (error: unknown) => !(error instanceof Error && 'code' in error && error.code === 'ENOENT'),
  );
}

/** The problems inside a file, with its path before theirs. */
export function within<T>(file: NamedFile, parsed: T | Problem[]): T | Problem[] {
  if (!Array.isArray(parsed)) return parsed;
  return parsed.map(({ path, message }) => ({ path: `${String(file.path)}: ${path}`, message }));
}

export function fault(file: NamedFile, expected: string): Problem {
  return { path: file.variable, message: `${JSON.stringify(file.path)}; expected ${expected}` };
}
