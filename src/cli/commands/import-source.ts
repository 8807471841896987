import { open } from 'node:fs/promises';
import process from 'node:process';

import { systemCodeOf, UsageFault } from '../faults.js';
import type { Terminal } from '../terminal.js';
import { holdsSecret, LINE_BYTES_MAX } from './import-line.js';
import { type Line, readLines } from './read-lines.js';

const FOR_OTHERS = 0o077;

/** Where the lines of an import come from. */
export interface ImportSource extends AsyncDisposable {
  /** Absent: nobody knows before it ends. */
  readonly bytes?: number;
  /** @throws UsageFault where it cannot be read */
  lines(): AsyncIterable<Line>;
}

/**
 * @param path `-`: standard input
 * @throws UsageFault where the file cannot be read, or holds secrets and may be read by others than its owner
 */
export async function openImport(path: string, terminal: Terminal): Promise<ImportSource> {
  if (path === '-') {
    return {
      lines: () => tell(readLines(terminal.stdin, LINE_BYTES_MAX)),
      [Symbol.asyncDispose]: () => Promise.resolve(),
    };
  }
  const file = await open(path).catch((error: unknown) => {
    throw cannotRead(error);
  });
  try {
    const stats = await file.stat();
    const isRegular = stats.isFile();
    const lines = () => {
      // A pipe has no place to begin at.
      const stream = file.createReadStream({ autoClose: false, ...(isRegular && { start: 0 }) });
      return tell(readLines(stream, LINE_BYTES_MAX));
    };
    // Windows has no such bits, and reports them as set.
    if (isRegular && (stats.mode & FOR_OTHERS) !== 0 && process.platform !== 'win32') await refuseSecrets(lines());
    return { ...(isRegular && { bytes: stats.size }), lines, [Symbol.asyncDispose]: () => file.close() };
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** Before anything is sent: what others may have read must not become a key that works. */
async function refuseSecrets(lines: AsyncIterable<Line>): Promise<void> {
  for await (const { number, bytes } of lines) {
    if (bytes && holdsSecret(bytes)) {
      throw new UsageFault(
        `--file: line ${number} holds a secret, and others than its owner may open the file: nothing was imported; ` +
          'make it yours alone (chmod 600), or give digests instead',
      );
    }
  }
}

async function* tell(lines: AsyncIterable<Line>): AsyncGenerator<Line, void> {
  try {
    yield* lines;
  } catch (error) {
    throw cannotRead(error);
  }
}

function cannotRead(error: unknown): UsageFault {
  return new UsageFault(`--file: it cannot be read: ${systemCodeOf(error)}`, { cause: error });
}
