/**
 * The way to the replica set. Every call of the driver goes through here, so that none outlasts its deadline, and what
 * it throws because of the network or the set's state leaves as a fault.
 */
import { setMaxListeners } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  type ClientSession,
  type Db,
  MongoClient,
  type MongoClientOptions,
  ReadConcern,
  type Timestamp,
  WriteConcern,
} from 'mongodb';

import type { Deadline } from '../../keys/clock.js';
import type { Secret } from '../../keys/secret.js';
import { within } from '../../within.js';
import { StoreFault } from '../faults.js';
import { Overtaken, TimedOut, isDuplicateKey, isSnapshotGone, isTimeRefused, toFault } from './trouble.js';

/** The longest that the server works on one statement; a caller with more time waits for a retry, not for the statement. */
export const STATEMENT_MS_MAX = 5000;

/** Of what is no promise to anybody, and written again soon. */
export const FLEETING = new WriteConcern(1);

/** Majority and journaled: what is acknowledged outlives the loss of a minority of the members, and of their power. */
export const DURABLE = new WriteConcern('majority', STATEMENT_MS_MAX, true);

const DEFAULT_DATABASE = 'keyreeve';

// What the URI says comes first. Left alone, the driver waits without end for an answer and for a free connection.
const DEFAULTS = {
  appName: 'keyreeve',
  serverSelectionTimeoutMS: 5000,
  connectTimeoutMS: 2000,
  // Above STATEMENT_MS_MAX: the server gives up first, which costs no connection.
  socketTimeoutMS: 6000,
  waitQueueTimeoutMS: 2000,
  heartbeatFrequencyMS: 1000,
  maxPoolSize: 50,
  retryReads: true,
  retryWrites: true,
} satisfies MongoClientOptions;

// Most of the time that a process has to end is for the server, which has waited for these calls by then.
const QUIET_MS_MAX = 1000;
const CLOSE_MS_MAX = 1000;

const BACK_OFF_MS_MAX = 100;
const REST_MS_MAX = 1000;
const AHEAD = 'the member of MongoDB that was asked does not know the time that it was asked for yet';

/** What binds a call of the driver to its deadline and to its session. */
export interface Bounds {
  readonly maxTimeMS: number;
  readonly session?: ClientSession;
  readonly readConcern?: ReadConcern;
}

/**
 * Runs one call of the driver; it must pass the bounds on.
 * @throws TimedOut at the deadline, whatever the call does: the driver's own `timeoutMS` has no effect in 7.8
 */
export type Ask = <T>(call: (bounds: Bounds) => Promise<T>) => Promise<T>;

export class Connection implements AsyncDisposable {
  readonly db: Db;
  /** For commands that concern the server, not our database. */
  readonly admin: Db;
  readonly #client: MongoClient;
  readonly #uri: Secret;
  readonly #running = new Set<Promise<unknown>>();
  #closing = false;
  readonly #closed = new AbortController();

  /**
   * Connects at the first call.
   * @throws Error if the URI is none
   */
  constructor(uri: Secret) {
    this.#uri = uri;
    // Whatever waits listens to it.
    setMaxListeners(0, this.closed);
    try {
      this.#client = this.#newClient();
      this.db = this.#databaseOf(this.#client);
      this.admin = this.#client.db('admin', { readPreference: 'primary' });
    } catch {
      // The driver's error may quote the URI, password and all.
      throw new Error(
        'it is no usable connection string; expected mongodb://host:port,host:port/database?replicaSet=name, with special characters in user and password percent-encoded',
      );
    }
  }

  /**
   * Runs one call of the port: `dispose` waits for it, and what it throws is as the port promises.
   * @throws StoreFault
   */
  async run<T>(work: () => Promise<T>): Promise<T> {
    if (this.#closing) throw new StoreFault('unavailable', 'the store is closed');
    try {
      return await this.#track(work());
    } catch (error) {
      throw toFault(error);
    }
  }

  /** Runs work that no call waits for; only `dispose` does. */
  runAside(work: () => Promise<void>): void {
    // It cleans up after a call that has failed and said so.
    this.#track(work()).catch(() => undefined);
  }

  /** What this process calls itself to the server, the same in all replicas. */
  get appName(): string | undefined {
    return this.#client.options.appName;
  }

  /** Asks outside of any session. */
  ask(deadline: Deadline): Ask {
    return (call) => withinDeadline(deadline, (maxTimeMS) => call({ maxTimeMS }));
  }

  /** Asks in the session, be it in a transaction or not. */
  askIn(session: ClientSession, deadline: Deadline): Ask {
    return (call) => withinDeadline(deadline, (maxTimeMS) => call({ maxTimeMS, session }));
  }

  /**
   * Runs work that may take the server minutes, over connections of its own, which wait for each answer until the server
   * is found to be gone.
   */
  async patiently<T>(work: (db: Db) => Promise<T>): Promise<T> {
    await using client = this.#newClient({ socketTimeoutMS: 0 });
    return await work(this.#databaseOf(client));
  }

  /** The same until the deadline. */
  askPatiently<T>(deadline: Deadline, call: (db: Db, maxTimeMS: number) => Promise<T>): Promise<T> {
    if (deadline.passed) throw new TimedOut();
    return untilDeadline(
      deadline,
      this.patiently((db) => call(db, Math.ceil(deadline.remainingMs()))),
    );
  }

  #newClient(options: MongoClientOptions = {}): MongoClient {
    const text = this.#uri.reveal();
    return new MongoClient(text, { ...unlessIn(text, DEFAULTS), ...options });
  }

  #databaseOf(client: MongoClient): Db {
    return client.db(databaseIn(this.#uri.reveal()), {
      readPreference: 'primary',
      readConcern: new ReadConcern('majority'),
      writeConcern: DURABLE,
    });
  }

  /**
   * Runs an upsert by `_id`, outside of any session. Of two that meet the server may turn one back, which then finds what
   * the other wrote.
   */
  async upsert<T>(deadline: Deadline, call: (bounds: Bounds) => Promise<T>): Promise<T> {
    for (let attempt = 0; ; attempt += 1) {
      try {
        return await this.ask(deadline)(call);
      } catch (error) {
        if (!isDuplicateKey(error)) throw error;
        if (await this.backOff(attempt, deadline)) continue;
        throw new Overtaken('others wrote the document until the deadline', { cause: error });
      }
    }
  }

  /**
   * Reads what a majority has acknowledged, as of no earlier than that time of the database: a time that this client has
   * been told of, by whatever call.
   */
  async after<T>(time: Timestamp, deadline: Deadline, read: (ask: Ask) => Promise<T>): Promise<T> {
    const session = this.#client.startSession({ causalConsistency: true });
    session.advanceOperationTime(time);
    const ask = this.askIn(session, deadline);
    try {
      // A new object each time: the driver writes the time into it.
      return await read((call) => ask((bounds) => call({ ...bounds, readConcern: new ReadConcern('majority') })));
    } catch (error) {
      throw isTimeRefused(error) ? new StoreFault('unavailable', AHEAD, { cause: error }) : error;
    } finally {
      await session.endSession();
    }
  }

  /**
   * Asks, and answers also a time of the database: a write's own, or a later one; with a linearizable read, one that is no
   * earlier than all that was acknowledged before.
   */
  async timed<T>(deadline: Deadline, asking: (ask: Ask) => Promise<T>): Promise<{ answer: T; time: Timestamp }> {
    for (let attempt = 0; ; attempt += 1) {
      const session = this.#client.startSession({ causalConsistency: true });
      try {
        const answer = await asking(this.askIn(session, deadline));
        const { operationTime } = session;
        if (!operationTime) throw new Error('the server told no operation time');
        return { answer, time: operationTime };
      } catch (error) {
        // Asked again by the driver, a linearizable read is asked for a time as well, and turned down for that.
        if (!isTimeRefused(error)) throw error;
        if (!(await this.backOff(attempt, deadline))) throw new TimedOut();
      } finally {
        await session.endSession();
      }
    }
  }

  /** A session for transactions. Nothing is read ahead of one, so no causal order is asked for. */
  startSession(): ClientSession {
    return this.#client.startSession({ causalConsistency: false });
  }

  /** Reads, several times perhaps, as of one moment, in which all that a majority has acknowledged is seen. */
  async atOneMoment<T>(deadline: Deadline, read: (ask: Ask) => Promise<T>): Promise<T> {
    for (let attempt = 0; ; attempt += 1) {
      const session = this.#client.startSession({ snapshot: true });
      try {
        return await read((call) =>
          // A new object each time: the driver writes the moment into it.
          withinDeadline(deadline, (maxTimeMS) =>
            call({ maxTimeMS, session, readConcern: new ReadConcern('snapshot') }),
          ),
        );
      } catch (error) {
        if (!isSnapshotGone(error) || !(await this.backOff(attempt, deadline))) throw error;
      } finally {
        await session.endSession();
      }
    }
  }

  /**
   * Waits a moment before the next attempt, longer and longer, and differently long for those that met each other.
   * @returns false, at once, where the deadline would pass or the store is closed meanwhile
   */
  async backOff(attempt: number, deadline: Deadline): Promise<boolean> {
    const ms = restMs(attempt, BACK_OFF_MS_MAX);
    if (ms >= deadline.remainingMs()) return false;
    return sleep(ms, true, { signal: this.#closed.signal }).catch(() => false);
  }

  /**
   * The same for work that nobody waits for, up to a second.
   * @returns false, at once, when it is ended
   */
  rest(attempt: number, ended: AbortSignal): Promise<boolean> {
    return this.pause(restMs(attempt, REST_MS_MAX), ended);
  }

  /** @returns false, at once, when it is ended */
  pause(ms: number, ended: AbortSignal): Promise<boolean> {
    return sleep(ms, true, { signal: ended }).catch(() => false);
  }

  /** Aborted when the store is closed. */
  get closed(): AbortSignal {
    return this.#closed.signal;
  }

  /** Lets finish what runs, for a second, and closes every connection. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing = true;
    const quiet = async () => {
      while (this.#running.size > 0) await Promise.allSettled(this.#running);
    };
    await Promise.race([quiet(), sleep(QUIET_MS_MAX, undefined, { ref: false })]);
    this.#closed.abort();
    // It says good-bye to the server, which may be the one that does not answer.
    await Promise.race([this.#client.close(), sleep(CLOSE_MS_MAX, undefined, { ref: false })]);
  }

  #track<T>(work: Promise<T>): Promise<T> {
    const tracked = work.finally(() => this.#running.delete(tracked));
    this.#running.add(tracked);
    return tracked;
  }
}

function restMs(attempt: number, msMax: number): number {
  return (0.5 + Math.random()) * Math.min(msMax, 4 * 2 ** attempt);
}

/** Settles as the work does, or rejects with `TimedOut` at the deadline. */
export function untilDeadline<T>(deadline: Deadline, work: Promise<T>): Promise<T> {
  return within(deadline.remainingMs(), work, { late: () => new TimedOut() });
}

async function withinDeadline<T>(deadline: Deadline, call: (maxTimeMS: number) => Promise<T>): Promise<T> {
  if (deadline.passed) throw new TimedOut();
  return untilDeadline(deadline, call(Math.ceil(Math.min(deadline.remainingMs(), STATEMENT_MS_MAX))));
}

function unlessIn(uri: string, defaults: MongoClientOptions): MongoClientOptions {
  const given = new URLSearchParams(/\?(.*)$/s.exec(uri)?.[1]);
  const names = new Set([...given.keys()].map((name) => name.toLowerCase()));
  return Object.fromEntries(Object.entries(defaults).filter(([name]) => !names.has(name.toLowerCase())));
}

function databaseIn(uri: string): string {
  const path = /^[^:]+:\/\/[^/?]*\/([^?]*)/.exec(uri)?.[1];
  return path ? decodeURIComponent(path) : DEFAULT_DATABASE;
}
