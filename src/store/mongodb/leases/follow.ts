import type { Log } from '../../../log.js';
import { within } from '../../../within.js';
import { StoreFault } from '../../faults.js';
import type { Following } from '../../port.js';
import type { Reads } from '../read.js';
import { FillReads } from './fill-reads.js';
import { Membership, type MembershipParts } from './membership.js';
import type { Members } from './members.js';
import { Untold } from './stream-check.js';

export interface FollowParts extends MembershipParts {
  readonly members: Members;
  readonly reads: Reads;
  readonly log: Pick<Log, 'info' | 'warn' | 'error'>;
}

/** Between two lives. A place is lost when somebody restores or drops the database, hardly ever otherwise. */
const REST_MS = 1000;
const LEAVE_MS_MAX = 1000;
const TOLD_EVERY_MS = 60_000;
/** Leases that pass without one before that is told. */
const LEASES_MISSED = 2;

/**
 * Keeps a replica among those that answer from memory: whenever its place is lost it forgets all and begins anew. Beside
 * that it removes those that are dead.
 */
export function follow(parts: FollowParts): Following {
  const { connection, follower, members, reads, leaseMs, clock, log } = parts;
  const ending = new AbortController();
  const ended = AbortSignal.any([ending.signal, connection.closed]);
  let membership: Membership | undefined;
  let trouble: unknown;

  async function live(): Promise<void> {
    let isAnew = false;
    for (let restMs = 0; await connection.pause(restMs, ended); restMs = REST_MS) {
      const begun = await Membership.begin(parts).catch(noteTrouble);
      // Ended meanwhile, it would leave a document behind that nobody removes before its lease is over.
      if (!begun || ended.aborted) continue;
      if (isAnew) log.info('this replica joins the others anew; until it has, verifications read the store');
      isAnew = true;
      membership = begun;
      try {
        await begun.live(ended);
      } catch (error) {
        noteTrouble(error);
        const level = error instanceof Untold ? 'error' : 'warn';
        log[level]({ err: error }, 'this replica has lost its place among the others and forgets what it kept');
        membership = undefined;
        follower.allChanged();
      }
    }
  }

  function noteTrouble(error: unknown): undefined {
    trouble = error;
  }

  /** Says so where the replica stays without a lease. Never rejects. */
  async function watch(): Promise<void> {
    let heldMs = clock.monotonicMs();
    let toldMs = Number.NEGATIVE_INFINITY;
    while (await connection.pause(leaseMs / 2, ended)) {
      const nowMs = clock.monotonicMs();
      if (membership?.holds() === true) {
        if (toldMs > heldMs) log.info('this replica answers from memory again');
        heldMs = nowMs;
      } else if (nowMs - heldMs > LEASES_MISSED * leaseMs && nowMs - toldMs > TOLD_EVERY_MS) {
        toldMs = nowMs;
        const facts = { seconds: Math.round((nowMs - heldMs) / 1000), err: membership?.trouble ?? trouble };
        log.warn(facts, 'this replica gets no lease: every verification reads the store');
      }
    }
  }

  const running = Promise.all([live(), watch(), members.removeDead(ended)]);
  const fills = new FillReads(reads, connection, clock, follower);

  return {
    holds: () => membership?.holds() === true,
    lease: () => ({ remainingMs: membership?.leaseRemainingMs ?? 0, replicas: members.count }),
    read(keyspace, digest) {
      if (membership) return fills.read(keyspace, digest, membership);
      return Promise.reject(new StoreFault('unavailable', 'this replica has no place among the others'));
    },
    async [Symbol.asyncDispose]() {
      const left = membership;
      membership = undefined;
      ending.abort();
      // Whoever is not told that it has left waits for it, for a lease at the longest.
      const leave = async () => {
        await running;
        await left?.leave();
      };
      await within(LEAVE_MS_MAX, leave()).catch(() => undefined);
    },
  };
}
