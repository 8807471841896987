import { type ClientSession, ReadConcern } from 'mongodb';

import type { Deadline } from '../../keys/clock.js';
import { StoreFault } from '../faults.js';
import { type Ask, type Connection, DURABLE, STATEMENT_MS_MAX } from './connection.js';
import { endForsaken } from './forsaken.js';
import { TimedOut, isRolledBack, isTurnedDown, troubleOf } from './trouble.js';

// About a second of attempts in vain: whoever lives is through by then.
const ATTEMPTS_PER_LOOK = 10;

const MAY_HAVE_HAPPENED =
  'MongoDB did not say whether the change was committed: it may have happened, and repeating it with the same request id finds out';

/**
 * Tries until the deadline, each time in a new transaction, which the attempt commits or aborts.
 * @throws StoreFault `contention` where others were first, and none of the attempts came through
 */
export async function untilCommitted<T>(
  connection: Connection,
  deadline: Deadline,
  attempt: (transaction: Transaction) => Promise<T>,
): Promise<T> {
  await using transaction = new Transaction(connection, deadline);
  let wasOvertaken = false;
  for (let attempts = 0; ; attempts += 1) {
    try {
      await transaction.begin();
      return await attempt(transaction);
    } catch (error) {
      const trouble = troubleOf(error);
      if (trouble === undefined) throw error;
      if (trouble === 'contention') {
        wasOvertaken = true;
        if (attempts % ATTEMPTS_PER_LOOK === ATTEMPTS_PER_LOOK - 1) await endForsaken(connection, deadline);
      }
      if (await connection.backOff(attempts, deadline)) continue;
      if (!wasOvertaken) throw error;
      throw new StoreFault('contention', 'changes by other replicas were first until the deadline', { cause: error });
    }
  }
}

/** The transactions of one work: attempt after attempt on one session, the last of which may be committed. */
export class Transaction implements AsyncDisposable {
  readonly #connection: Connection;
  readonly #deadline: Deadline;
  readonly #session: ClientSession;
  #lastCall: Promise<unknown> = Promise.resolve();

  constructor(connection: Connection, deadline: Deadline) {
    this.#connection = connection;
    this.#deadline = deadline;
    this.#session = connection.startSession();
  }

  readonly ask: Ask = (call) =>
    this.#connection.askIn(
      this.#session,
      this.#deadline,
    )((bounds) => {
      const running = call(bounds);
      this.#lastCall = running;
      return running;
    });

  /** Begins the next attempt and gives up the one before. */
  async begin(): Promise<void> {
    await this.abort();
    this.#session.startTransaction({
      readPreference: 'primary',
      readConcern: new ReadConcern('snapshot'),
      writeConcern: DURABLE,
      maxCommitTimeMS: Math.ceil(Math.min(this.#deadline.remainingMs() || 1, STATEMENT_MS_MAX)),
    });
  }

  async abort(): Promise<void> {
    if (this.#session.inTransaction()) await this.ask(() => this.#session.abortTransaction());
  }

  /**
   * Commits. Where the outcome stays unknown the commit alone is sent again, never the change: that could happen twice.
   * @throws StoreFault if it is unknown at the deadline
   * @throws MongoServerError if the server says that it did not happen
   */
  async commit(): Promise<void> {
    if (this.#deadline.passed) throw new TimedOut();
    for (let attempt = 0; ; attempt += 1) {
      try {
        await this.ask(() => this.#session.commitTransaction());
        return;
      } catch (error) {
        if (isRolledBack(error) || (attempt === 0 && isTurnedDown(error))) throw error;
        if (await this.#connection.backOff(attempt, this.#deadline)) continue;
        throw new StoreFault('unavailable', MAY_HAVE_HAPPENED, { cause: error });
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#session.inTransaction()) {
      await this.#session.endSession();
      return;
    }
    this.#connection.runAside(async () => {
      // The driver allows one call of a session at a time; one that was given up it ends by its own time-outs.
      await this.#lastCall.catch(() => undefined);
      await this.#session.endSession();
    });
  }
}
