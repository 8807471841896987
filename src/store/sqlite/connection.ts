/**
 * The one connection to the file: work on it is synchronous and never awaits, so whatever runs on it sees one moment
 * and nothing comes between. Errors of the engine leave as faults.
 */
import Database from 'libsql';

import type { Deadline } from '../../keys/clock.js';
import { StoreFault } from '../faults.js';

/** What can be bound. The engine aborts the process on a boolean and cuts text off at U+0000 when it is read. */
type Cell = string | number | Uint8Array | null;
/** Values by their names in the statement. */
type Cells<Names extends PropertyKey> = Readonly<Record<Names, Cell>>;

export interface Statement<Row> {
  get<C extends Cells<keyof C>>(cells: C): Row | undefined;
  all<C extends Cells<keyof C>>(cells: C): Row[];
  /** Answers how many rows it changed. */
  run<C extends Cells<keyof C>>(cells: C): number;
}

/** Each row has one of each table, by the table's name, and of nulls where the join found none. */
export interface JoinStatement<Rows> {
  /** By their places, which takes the engine less time than by their names. */
  get(cells: readonly Cell[]): Rows | undefined;
}

/** Pages kept in memory, as keys are looked for at random. The engine's own 2 MB hold those of a few thousand keys. */
const PAGES_KIB_MAX = 64 * 1024;

export class Connection implements Disposable {
  readonly #db: Database.Database;
  #open = true;

  /**
   * Takes the file for this process alone, until `dispose` or the process's end.
   * @throws SqliteError SQLITE_BUSY where another has it
   */
  constructor(path: string) {
    this.#db = openFile(path);
    try {
      // Exclusive before the first access: then the WAL's index is kept in memory and the lock is held throughout.
      this.#db.pragma('locking_mode = EXCLUSIVE');
      this.#db.pragma('journal_mode = WAL');
      if (this.pragma('journal_mode') !== 'wal') throw new Error('this file system cannot hold a write-ahead log');
      // Each commit is on the disk before it is answered.
      this.#db.pragma('synchronous = FULL');
      this.#db.pragma('trusted_schema = OFF');
      this.#db.pragma(`cache_size = ${-PAGES_KIB_MAX}`);
    } catch (error) {
      this.#db.close();
      throw error;
    }
  }

  prepare<Row>(sql: string): Statement<Row> {
    const statement = this.#db.prepare<object>(sql);
    const names = statement.columns().map(({ name }) => name);
    // As lists: the engine takes longer to name the values of a row than to find it.
    if (names.length > 0) statement.raw();
    const toRow = (values: unknown) => named(names, values as readonly unknown[]) as Row;
    return {
      get(cells) {
        const values: unknown = statement.get(cells);
        return values === undefined ? undefined : toRow(values);
      },
      all: (cells) => statement.all(cells).map(toRow),
      run: (cells) => statement.run(cells).changes,
    };
  }

  prepareJoin<Rows>(sql: string): JoinStatement<Rows> {
    const statement = this.#db.prepare<object>(sql).raw();
    const columns = statement.columns();
    const tables = [...new Set(columns.map(({ table }) => table ?? ''))].map((table) => {
      const from = columns.findIndex((column) => column.table === table);
      return { table, from, names: columns.filter((column) => column.table === table).map(({ name }) => name) };
    });
    return {
      get(cells) {
        const values = statement.get(cells) as readonly unknown[] | undefined;
        if (!values) return undefined;
        const rows: Record<string, unknown> = {};
        for (const { table, from, names } of tables) rows[table] = named(names, values, from);
        return rows as Rows;
      },
    };
  }

  exec(sql: string): void {
    this.#db.exec(sql);
  }

  /** A setting's value, where the setting has one. */
  pragma(name: string): unknown {
    const row = this.#db.prepare(`PRAGMA ${name}`).get([]) as Record<string, unknown> | undefined;
    return row?.[name];
  }

  /** Commits what the work wrote, durably, or nothing if it throws. */
  transaction<T>(work: () => T): T {
    this.#db.exec('BEGIN IMMEDIATE');
    try {
      const answer = work();
      this.#db.exec('COMMIT');
      return answer;
    } catch (error) {
      // After some I/O errors the engine has rolled back by itself.
      if (this.#db.inTransaction) this.#db.exec('ROLLBACK');
      throw error;
    }
  }

  /** Runs the work at once, unless the store is closed or nobody waits any more. */
  answer<T>(deadline: Deadline | undefined, work: () => T): Promise<T> {
    return new Promise((resolve) => {
      if (deadline?.passed) throw new StoreFault('unavailable', 'the deadline passed before the store could begin');
      resolve(this.answerNow(work));
    });
  }

  /** @throws StoreFault, also where the store is closed */
  answerNow<T>(work: () => T): T {
    if (!this.#open) throw new StoreFault('unavailable', 'the store is closed');
    try {
      return work();
    } catch (error) {
      throw toFault(error);
    }
  }

  /** Moves the WAL into the file and lets another process have it. */
  [Symbol.dispose](): void {
    if (!this.#open) return;
    this.#open = false;
    try {
      // Closing is not enough: the engine keeps the file, and the lock, as long as a prepared statement lives.
      this.#db.pragma('journal_mode = DELETE');
      this.#db.pragma('locking_mode = NORMAL');
      this.#db.prepare('SELECT count(*) FROM sqlite_schema').get([]);
    } catch {
      // On a full disk. What was committed is in the WAL, and the next open finds it there.
    }
    this.#db.close();
  }
}

function named(names: readonly string[], values: readonly unknown[], from = 0): Record<string, unknown> {
  const row: Record<string, unknown> = {};
  names.forEach((name, at) => {
    row[name] = values[from + at];
  });
  return row;
}

function openFile(path: string): Database.Database {
  try {
    return new Database(path);
  } catch (error) {
    // The engine says "ConnectionFailed" and a number here, whatever the reason.
    throw new Error('it is no file, or this user may not read and write it', { cause: error });
  }
}

/** The engine's result code without its extension, for errors that are the engine's. */
export function resultCodeOf(error: unknown): number | undefined {
  if (!(error instanceof Error) || !('rawCode' in error) || typeof error.rawCode !== 'number') return undefined;
  return error.rawCode & 0xff;
}

// https://www.sqlite.org/rescode.html
export const SQLITE_BUSY = 5;
export const SQLITE_CORRUPT = 11;
export const SQLITE_NOTADB = 26;
const SQLITE_ERROR = 1;
const SQLITE_TOOBIG = 18;
const SQLITE_CONSTRAINT = 19;
const SQLITE_MISUSE = 21;
const SQLITE_RANGE = 25;

/** Those of our own making say which constraint or statement; all others say that the file cannot be used now. */
function toFault(error: unknown): unknown {
  const code = resultCodeOf(error);
  switch (code) {
    case undefined:
    case SQLITE_ERROR:
    case SQLITE_TOOBIG:
    case SQLITE_MISUSE:
    case SQLITE_RANGE:
      return error;
    case SQLITE_CONSTRAINT:
      return new Error(`a change contradicts what is stored: ${messageOf(error)}`, { cause: error });
    default:
      return new StoreFault('unavailable', `the database file cannot be used now: ${messageOf(error)}`, {
        cause: error,
      });
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
