import { closeSync, mkdirSync, openSync, readSync, realpathSync, statSync } from 'node:fs';
import { join } from 'node:path';

import type { Commit } from '../../keys/change.js';
import type { Clock, Deadline } from '../../keys/clock.js';
import type { KeyspaceFacts } from '../../keys/keyspace-facts.js';
import type { Organization, OrganizationRef } from '../../keys/organization.js';
import type { Follower, Store } from '../port.js';
import { prepareBookkeeping } from './bookkeeping.js';
import { prepareChange } from './change.js';
import { Connection, SQLITE_BUSY, SQLITE_CORRUPT, SQLITE_NOTADB, resultCodeOf } from './connection.js';
import { openOutbox } from './outbox.js';
import { prepareReads } from './read.js';
import { claim, prepareSchema } from './schema.js';

export interface SqliteOptions {
  /** Made, for its owner alone, where there is none. Holds `keyreeve.db`. */
  readonly dataDir: string;
  /** The events' CloudEvents `source`, `urn:keyreeve:<installation>`. */
  readonly source: string;
  readonly clock: Clock;
  /** Told, a line each, what was done to the file to make it usable. */
  readonly report: (line: string) => void;
}

/** In the data directory. */
export const DATABASE_FILE = 'keyreeve.db';
const ORGANIZATIONS_AT_ONCE = 500;

/**
 * Opens the embedded store. The file is this process's alone until the store is disposed.
 * @throws InUse, or another Error, that names the folder or file and says why it cannot be used
 */
export function openSqliteStore({ dataDir, report, ...options }: SqliteOptions): Store {
  const path = join(dataDir, DATABASE_FILE);
  makeFolder(dataDir);
  try {
    makeFile(path);
    const place = take(path);
    try {
      checkLog(path);
      const connection = new Connection(path);
      try {
        for (const line of prepareSchema(connection)) report(line);
        claim(connection, options.source);
        return toStore(connection, options, place);
      } catch (error) {
        connection[Symbol.dispose]();
        throw error;
      }
    } catch (error) {
      place[Symbol.dispose]();
      throw error;
    }
  } catch (error) {
    const message = `cannot open the database ${path}: ${whyNot(error)}`;
    throw isHeld(error) ? new InUse(message, { cause: error }) : new Error(message, { cause: error });
  }
}

/** The file belongs to whoever has it open. */
export class InUse extends Error {
  override readonly name = 'InUse';
}

function isHeld(error: unknown): boolean {
  return error instanceof InUse || resultCodeOf(error) === SQLITE_BUSY;
}

function toStore(
  connection: Connection,
  { source, clock }: Pick<SqliteOptions, 'source' | 'clock'>,
  place: Disposable,
): Store {
  const read = prepareReads(connection);
  const change = prepareChange(connection, read, { source, clock });
  const bookkeeping = prepareBookkeeping(connection, clock);
  const { outbox, tellCommit } = openOutbox(connection);
  const rememberKeyspace = connection.prepare(
    `INSERT OR REPLACE INTO keyspaces (name, kind, prefix, body_length, unique_names)
     VALUES (:name, :kind, :prefix, :body_length, :unique_names)`,
  );
  const ping = connection.prepare('INSERT OR REPLACE INTO last_ping (one, time) VALUES (1, :time)');

  const followers = new Set<Follower>();

  // Whoever led is gone: the file has one process at a time.
  connection.exec('DELETE FROM leadership');

  const answer = <T>(deadline: Deadline | undefined, work: () => T): Promise<T> => connection.answer(deadline, work);
  return {
    change: (load, rule, deadline) =>
      answer(deadline, () => {
        const { answer: answered, commit } = change(load, rule);
        if (commit) {
          for (const follower of followers) tell(follower, commit);
          if (commit.events.length > 0) tellCommit();
        }
        return answered;
      }),
    findByDigest: (keyspace, digest, deadline) => answer(deadline, () => read.keyByDigest(keyspace, digest)),
    findOrganization: (organization, deadline) => answer(deadline, () => read.organization(organization)),
    selectKeys: (organization, selector, deadline) => answer(deadline, () => read.selectKeys(organization, selector)),
    listKeys: (organization, query, deadline) => answer(deadline, () => read.listKeys(organization, query)),
    countExpired: (organization, at, deadline) => answer(deadline, () => read.countExpired(organization, at)),
    listEvents: (organization, query, deadline) => answer(deadline, () => read.listEvents(organization, query)),
    organizations: () =>
      eachOrganization((after) =>
        connection.answer(undefined, () => read.organizationsAfter(after, ORGANIZATIONS_AT_ONCE)),
      ),
    recordUses: (uses, deadline) => answer(deadline, () => bookkeeping.recordUses(uses)),
    moveDigest: (keyId, from, to, deadline) =>
      answer(deadline, () => {
        if (!bookkeeping.moveDigest(keyId, from, to)) return;
        for (const follower of followers) follower.digestMoved(keyId);
      }),
    countDigests: (deadline) => answer(deadline, () => bookkeeping.countDigests()),
    hasDigests: (pepperVersion, deadline) => answer(deadline, () => bookkeeping.hasDigests(pepperVersion)),
    takeBudget: (ask, deadline) => answer(deadline, () => bookkeeping.takeBudget(ask)),
    readBudget: (ask, deadline) => answer(deadline, () => bookkeeping.readBudget(ask)),
    // The file has one process at a time.
    isShared: false,
    follow(follower) {
      followers.add(follower);
      return {
        // Told within the same turn as the commit.
        holds: () => followers.has(follower),
        read: (keyspace, digest) => answer(undefined, () => read.keyByDigest(keyspace, digest)),
        readNow: (keyspace, digest) => connection.answerNow(() => read.keyByDigest(keyspace, digest)),
        [Symbol.asyncDispose]() {
          followers.delete(follower);
          return Promise.resolve();
        },
      };
    },
    // Followers were told before the change was answered.
    enforce: () => Promise.resolve({ complete: true }),
    pepperFingerprints: (deadline) => answer(deadline, () => bookkeeping.pepperFingerprints()),
    rememberPeppers: (fingerprints, deadline) => answer(deadline, () => bookkeeping.rememberPeppers(fingerprints)),
    keyspaceFacts: (deadline) => answer(deadline, () => read.keyspaceFacts()),
    rememberKeyspaces: (facts, deadline) =>
      answer(deadline, () =>
        connection.transaction(() => {
          for (const keyspace of facts) rememberKeyspace.run(toKeyspaceCells(keyspace));
        }),
      ),
    // A write, since a file that can be read may have no room left for a change.
    async ping(deadline) {
      await answer(deadline, () => ping.run({ time: clock.now().getTime() }));
    },
    outbox,
    [Symbol.asyncDispose]() {
      // Another process may change the file from now on.
      followers.clear();
      connection[Symbol.dispose]();
      place[Symbol.dispose]();
      return Promise.resolve();
    },
  };
}

/** The files that this process has open. */
const taken = new Set<string>();

/** To be asked before the file is looked into: closing it would end the lock that this process may have on it (POSIX). */
function take(path: string): Disposable {
  const real = realpathSync(path);
  if (taken.has(real)) throw new InUse();
  taken.add(real);
  return { [Symbol.dispose]: () => void taken.delete(real) };
}

// https://www.sqlite.org/fileformat2.html#file_format_version_numbers
const WRITE_VERSION_AT = 18;
const VERSION_WITHOUT_LOG = 1;

/**
 * A file that was closed has no log: one that lies beside it is another file's, left there by a crash before a copy was
 * put back. The engine would put the one's pages into the other, and find old keys with the marks of new events.
 * @throws Error that says so
 */
function checkLog(path: string): void {
  const log = `${path}-wal`;
  if ((statSync(log, { throwIfNoEntry: false })?.size ?? 0) === 0) return;
  const header = Buffer.alloc(WRITE_VERSION_AT + 1);
  const file = openSync(path, 'r');
  try {
    readSync(file, header, 0, header.length, 0);
  } finally {
    closeSync(file);
  }
  if (header[WRITE_VERSION_AT] !== VERSION_WITHOUT_LOG) return;
  throw new Error(
    `${DATABASE_FILE}-wal is not of this file, which was closed when it was copied: move ${DATABASE_FILE}-wal and ` +
      `${DATABASE_FILE}-shm out of the way, and go on as docs/restoring.md says`,
  );
}

function tell(follower: Follower, { put, organization }: Commit): void {
  for (const { after } of put) follower.keyChanged(after);
  follower.organizationChanged(organization);
}

async function* eachOrganization(
  pageAfter: (ref: OrganizationRef) => Promise<Organization[]>,
): AsyncGenerator<Organization> {
  let last: OrganizationRef | undefined = { keyspace: '', organizationId: '' };
  while (last) {
    const page = await pageAfter(last);
    yield* page;
    last = page.at(-1);
  }
}

function toKeyspaceCells({ name, kind, prefix, bodyLength, uniqueNames }: KeyspaceFacts) {
  return { name, kind, prefix, body_length: bodyLength, unique_names: Number(uniqueNames) };
}

function makeFolder(path: string): void {
  try {
    mkdirSync(path, { recursive: true, mode: 0o700 });
  } catch (error) {
    throw new Error(`cannot use the data folder ${path}: ${whyNot(error)}`, { cause: error });
  }
}

/** The engine would make it readable for all; its WAL takes over the file's mode. */
function makeFile(path: string): void {
  try {
    closeSync(openSync(path, 'wx', 0o600));
  } catch (error) {
    if (codeOf(error) !== 'EEXIST') throw error;
  }
}

function whyNot(error: unknown): string {
  if (isHeld(error)) return 'another process has it open, and only one can';
  const code = codeOf(error);
  if (code === 'EEXIST' || code === 'ENOTDIR') return 'a file is in its place';
  if (code === 'EACCES' || code === 'EPERM' || code === 'EROFS') return 'this user may not write there';
  const result = resultCodeOf(error);
  if (result === SQLITE_NOTADB || result === SQLITE_CORRUPT) return 'it is damaged, or no database: restore a copy';
  return error instanceof Error ? error.message : String(error);
}

function codeOf(error: unknown): unknown {
  return error instanceof Error && 'code' in error ? error.code : undefined;
}
