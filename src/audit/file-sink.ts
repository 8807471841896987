/**
 * The audit file: JSON Lines, one event a line, byte for byte the canonical CloudEvent. It only grows. What is not a
 * whole line at its end was never acknowledged: it is cut off before anything is appended.
 */
import { type FileHandle, mkdir, open, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { Logger } from 'pino';

import type { AuditEvent } from '../keys/event.js';
import { readAuditFile } from './read-file.js';
import { type ReadableSink, SinkFault, type SinkReading } from './sink.js';

/** In the data directory. */
export const AUDIT_FILE = 'audit.jsonl';

const NEWLINE = 0x0a;
const BATCH_BYTES_MAX = 1024 * 1024;

/**
 * Opens the file, or makes it, readable for its owner only, and repairs its end.
 * @throws SinkFault where the path cannot be written to
 */
export async function openFileSink(path: string, log: Logger): Promise<ReadableSink> {
  const sink = new FileSink(path, log);
  await sink.open();
  return sink;
}

class FileSink implements ReadableSink {
  readonly name = 'file';
  readonly kind = 'file';
  readonly answered = true;
  readonly batchBytesMax = BATCH_BYTES_MAX;
  readonly #path: string;
  readonly #log: Logger;
  #file: FileHandle | undefined;
  /** One write at a time, also after the relay has stopped waiting for one. */
  #last: Promise<unknown> = Promise.resolve();

  constructor(path: string, log: Logger) {
    this.#path = path;
    this.#log = log;
  }

  laneOf(): number {
    return 0;
  }

  async open(): Promise<void> {
    try {
      await mkdir(dirname(this.#path), { recursive: true });
      await this.#ready();
    } catch (error) {
      throw this.#toFault('cannot be opened', error);
    }
  }

  publish(_lane: number, events: readonly AuditEvent[]): Promise<number> {
    const publishing = this.#last.then(async () => {
      try {
        return await this.#append(Buffer.from(events.map(({ cloudEvent }) => `${cloudEvent}\n`).join('')));
      } catch (error) {
        throw this.#toFault('cannot be written', error);
      }
    });
    this.#last = publishing.catch(() => undefined); // told to the caller
    return publishing;
  }

  async readFrom(positions: ReadonlyMap<number, number>): Promise<SinkReading> {
    try {
      const { file, size } = await this.#ready();
      const known = positions.get(0) ?? 0;
      const start = known > size ? 0 : await lineBefore(file, known);
      return {
        entries: readAuditFile(this.#path, { start, end: size }),
        ends: new Map([[0, size]]),
        isEmpty: start === size,
      };
    } catch (error) {
      throw this.#toFault('cannot be read', error);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#last;
    await this.#file?.close();
    this.#file = undefined;
  }

  /** Answers where the file ends then. */
  async #append(lines: Buffer): Promise<number> {
    const { file, size } = await this.#ready();
    try {
      for (let done = 0; done < lines.length;) {
        const { bytesWritten } = await file.write(lines, done);
        done += bytesWritten;
      }
      await file.datasync();
      return size + lines.length;
    } catch (error) {
      // Also after a failed sync: what the disk holds is unknown then, and only writing it anew makes it known.
      await file.truncate(size).catch((untruncated: unknown) => {
        this.#log.warn({ err: untruncated }, 'audit file: what was half written is cut off before the next event');
      });
      throw error;
    }
  }

  /** The file under its path, ending in a whole line. */
  async #ready(): Promise<{ file: FileHandle; size: number }> {
    const file = await this.#underPath();
    const { size } = await file.stat();
    const whole = await endOfLastLine(file, size);
    if (whole < size) {
      this.#log.warn({ bytes: size - whole }, 'audit file: cut off a line that was half written; it is written again');
      await file.truncate(whole);
    }
    return { file, size: whole };
  }

  /** A file that was moved away or removed takes no more events: they would go where nobody looks. */
  async #underPath(): Promise<FileHandle> {
    if (this.#file) {
      const held = await this.#file.stat({ bigint: true });
      const named = await stat(this.#path, { bigint: true }).catch(ifMissing);
      if (named?.ino === held.ino && named.dev === held.dev) return this.#file;
      this.#log.warn('audit file: it was moved or removed, a new one is begun; its chain goes on from the old one');
      await this.#file.close();
      this.#file = undefined;
    }
    // Appending: should another process write here as well, neither overwrites the other.
    this.#file = await open(this.#path, 'a+', 0o600);
    await syncDirectory(dirname(this.#path));
    return this.#file;
  }

  #toFault(what: string, error: unknown): SinkFault {
    const reason = codeOf(error) ?? 'unknown error';
    return new SinkFault('unavailable', `the audit file ${this.#path} ${what}: ${reason}`, { cause: error });
  }
}

/**
 * Where the last line that begins before the position begins: with it one sees whether this is still the file that had
 * the position, since another one may have come to the same length.
 */
async function lineBefore(file: FileHandle, position: number): Promise<number> {
  return position === 0 ? 0 : endOfLastLine(file, position - 1);
}

/** Offset behind the last newline before `size`. */
async function endOfLastLine(file: FileHandle, size: number): Promise<number> {
  const chunk = Buffer.alloc(Math.min(size, 4096));
  let end = size;
  // Nearly always the last byte is the newline: look at it alone first.
  let length = Math.min(end, 1);
  while (end > 0) {
    const start = end - length;
    const { bytesRead } = await file.read(chunk, 0, length, start);
    if (bytesRead < length) throw new Error('the file became shorter while it was read');
    const newline = chunk.subarray(0, length).lastIndexOf(NEWLINE);
    if (newline !== -1) return start + newline + 1;
    end = start;
    length = Math.min(end, chunk.length);
  }
  return 0;
}

/** A new file's name must outlive a crash as well. */
async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, 'r');
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}

function ifMissing(error: unknown): undefined {
  if (codeOf(error) === 'ENOENT') return undefined;
  throw error;
}

function codeOf(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined;
}
