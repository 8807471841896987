import { readFileSync } from 'node:fs';
import { z } from 'zod';

/** The package's, as its package.json says. */
export function readVersion(): string {
  const path = new URL('../package.json', import.meta.url);
  return z.object({ version: z.string() }).parse(JSON.parse(readFileSync(path, 'utf8'))).version;
}
