/**
 * How a replica learns that all others have been told of what it has committed. It moves the fence, a document that all
 * of them watch: whoever has seen it move was told of all that was committed before. Those that say nothing are waited
 * for until they cannot hold a lease any more that does not know of it.
 */
import { Long, type Timestamp } from 'mongodb';

import { type Clock, Deadline } from '../../../keys/clock.js';
import { within } from '../../../within.js';
import type { Enforcement } from '../../port.js';
import { type Connection, FLEETING } from '../connection.js';
import { DRIFT, type Members } from './members.js';
import type { Collections } from '../schema.js';
import { isDuplicateKey, Overtaken, TimedOut, troubleOf } from '../trouble.js';

export interface EnforcementParts {
  readonly connection: Connection;
  readonly collections: Pick<Collections, 'meta'>;
  readonly members: Members;
  readonly clock: Clock;
}

/** Those that wait for the next round to begin, and for its end. */
interface Turn {
  waiting: number;
  readonly begun: Promise<Round>;
}

interface Round {
  readonly turn: Turn;
  readonly begunMs: number;
  /** How often the fence had been moved. */
  readonly count: number;
  /** When it was, or a later time. */
  time: Timestamp;
  /** Who has not said yet that it has seen it. */
  missing: ReadonlySet<string>;
  /** By then nobody can hold a lease that does not know of it. On the monotonic clock. */
  readonly endMs: number;
  readonly finished: Promise<void>;
  readonly finish: () => void;
}

const BEGIN_MS_MAX = 5000;
// Acknowledgements come within milliseconds. Who is later than that is away.
const EAGER_MS = 100;
const EAGER_LOOK_MS = 3;
const LOOK_MS = 50;
const LOOK_MS_MAX = 2000;

export class Enforcer {
  readonly #parts: EnforcementParts;
  readonly #rounds = new Set<Round>();
  #last: Promise<unknown> = Promise.resolve();
  #next: Turn | undefined;
  #seen: { readonly count: number; readonly time: Timestamp } | undefined;
  #looking = false;

  constructor(parts: EnforcementParts) {
    this.#parts = parts;
  }

  /** As the port's `enforce`. */
  async enforce(deadline: Deadline): Promise<Enforcement> {
    const { connection, clock, members } = this.#parts;
    const begunMs = clock.monotonicMs();
    const inTime = <T>(work: Promise<T>): Promise<T> =>
      within(deadline.remainingMs(), work, { signal: connection.closed, late: () => new TimedOut() });
    let endMs: number | undefined;
    for (let attempt = 0; ; attempt += 1) {
      const turn = (this.#next ??= this.#nextTurn());
      turn.waiting += 1;
      try {
        const round = await inTime(turn.begun);
        endMs = round.endMs;
        await inTime(round.finished);
        return { complete: true };
      } catch (error) {
        if (!connection.closed.aborted && troubleOf(error) === undefined) throw error;
        if (!deadline.passed && (await connection.backOff(attempt, deadline))) continue;
        const leftMs = (endMs ?? begunMs + DRIFT * members.longestMs) - clock.monotonicMs();
        return { complete: false, byTime: new Date(clock.now().getTime() + Math.max(0, leftMs)) };
      } finally {
        turn.waiting -= 1;
      }
    }
  }

  /** This replica was told of the fence: it was moved then, and not later, as an answer after a failover may say. */
  fenceSeen(count: number, time: Timestamp): void {
    this.#seen = { count, time };
    for (const round of this.#rounds) if (round.count === count && time.lessThan(round.time)) round.time = time;
  }

  /**
   * One that begins when the round before it has. Who asks while that begins joins the next one: what it has committed may
   * come behind the fence of the one that is about to be.
   */
  #nextTurn(): Turn {
    const begin = async () => {
      await this.#last.catch(() => undefined);
      this.#next = undefined;
      return this.#begin(turn);
    };
    const turn: Turn = { waiting: 0, begun: begin() };
    this.#last = turn.begun;
    return turn;
  }

  async #begin(turn: Turn): Promise<Round> {
    const { members, clock } = this.#parts;
    const begunMs = clock.monotonicMs();
    const deadline = Deadline.after(BEGIN_MS_MAX, clock);
    const { count, time } = await this.#moveFence(deadline);
    // Who joins later reads what was committed before.
    const joined = await members.at(time, deadline);
    const { promise: finished, resolve: finish } = settledLater();
    const seen = this.#seen?.count === count && this.#seen.time.lessThan(time) ? this.#seen.time : time;
    const round: Round = {
      turn,
      begunMs,
      count,
      time: seen,
      missing: new Set(joined.map(({ id }) => id)),
      endMs: begunMs + DRIFT * Math.max(0, ...joined.map(({ leaseMs }) => leaseMs)),
      finished,
      finish,
    };
    this.#rounds.add(round);
    if (!this.#looking) void this.#look();
    return round;
  }

  async #moveFence(deadline: Deadline): Promise<{ count: number; time: Timestamp }> {
    const { connection, collections } = this.#parts;
    try {
      const { answer, time } = await connection.timed(deadline, (ask) =>
        ask((bounds) =>
          collections.meta.findOneAndUpdate(
            { _id: 'fence' },
            { $inc: { count: Long.ONE } },
            { ...bounds, upsert: true, returnDocument: 'after', writeConcern: FLEETING },
          ),
        ),
      );
      return { count: Number(answer?.count), time };
    } catch (error) {
      if (isDuplicateKey(error)) throw new Overtaken('another replica put the fence up', { cause: error });
      throw error;
    }
  }

  /** Looks who has seen the fence, for all rounds at once, until none is left. Never rejects. */
  async #look(): Promise<void> {
    const { connection, clock } = this.#parts;
    this.#looking = true;
    try {
      for (;;) {
        const nowMs = clock.monotonicMs();
        for (const round of this.#rounds) {
          const isFinished = round.missing.size === 0 || nowMs >= round.endMs;
          if (isFinished) round.finish();
          if (isFinished || round.turn.waiting === 0) this.#rounds.delete(round);
        }
        const rounds = [...this.#rounds];
        if (rounds.length === 0) return;
        const isEager = rounds.some(({ begunMs }) => nowMs - begunMs < EAGER_MS);
        const soonestMs = Math.min(...rounds.map(({ endMs }) => endMs)) - nowMs;
        const deadline = Deadline.after(Math.min(LOOK_MS_MAX, soonestMs), clock);
        // It is looked again, and the rounds have an end.
        await (isEager ? this.#hear(rounds, deadline) : this.#count(rounds, deadline)).catch(() => undefined);
        if (!(await connection.pause(Math.min(isEager ? EAGER_LOOK_MS : LOOK_MS, soonestMs), connection.closed)))
          return;
      }
    } finally {
      this.#looking = false;
    }
  }

  /** What a replica has said is true, whichever server knows it. */
  async #hear(rounds: readonly Round[], deadline: Deadline): Promise<void> {
    const ids = new Set(rounds.flatMap(({ missing }) => [...missing]));
    const applied = await this.#parts.members.applied([...ids], deadline);
    for (const round of rounds) {
      round.missing = new Set([...round.missing].filter((id) => !hasSeen(applied.get(id), round)));
    }
  }

  /** Who is not there any more holds no lease. That only a majority knows. */
  async #count(rounds: readonly Round[], deadline: Deadline): Promise<void> {
    const time = rounds.map((round) => round.time).reduce((a, b) => (a.greaterThan(b) ? a : b));
    const members = new Map((await this.#parts.members.at(time, deadline)).map(({ id, applied }) => [id, applied]));
    for (const round of rounds) {
      round.missing = new Set([...round.missing].filter((id) => members.has(id) && !hasSeen(members.get(id), round)));
    }
  }
}

function hasSeen(applied: Timestamp | undefined, { time }: Round): boolean {
  return applied?.greaterThanOrEqual(time) === true;
}

function settledLater(): { promise: Promise<void>; resolve: () => void } {
  let resolve: () => void = () => undefined;
  const promise = new Promise<void>((settle) => {
    resolve = settle;
  });
  return { promise, resolve };
}
