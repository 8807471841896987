import { Deadline } from '../../../keys/clock.js';
import type { Log } from '../../../log.js';
import { within } from '../../../within.js';
import { StoreFault } from '../../faults.js';
import type { Following } from '../../port.js';
import { FillReads } from './fill-reads.js';
import { Membership, type MembershipParts, Untold } from './membership.js';
import type { Members } from './members.js';
import type { Reads } from '../read.js';

export interface FollowParts extends MembershipParts {
  readonly members: Members;
  readonly reads: Reads;
  readonly log: Pick<Log, 'info' | 'warn' | 'error'>;
}

/** Between two lives. A place is lost when somebody restores or drops the database, hardly ever otherwise. */
const REST_MS = 1000;
const LEAVE_MS_MAX = 1000;

/**
 * Keeps a replica among those that answer from memory: whenever its place is lost it forgets all and begins anew. Beside
 * that it removes those that are dead.
 */
export function follow(parts: FollowParts): Following {
  const { connection, follower, members, reads, clock, log } = parts;
  const ending = new AbortController();
  let membership: Membership | undefined;

  async function live(): Promise<void> {
    for (let lives = 0; await connection.pause(lives === 0 ? 0 : REST_MS, ending.signal);) {
      const begun = await Membership.begin(parts).catch(() => undefined);
      // The database is away: calls say so.
      if (!begun) continue;
      lives += 1;
      if (lives > 1) log.info('this replica joins the others anew; until it has, verifications read the store');
      membership = begun;
      try {
        await begun.live(ending.signal);
      } catch (error) {
        const level = error instanceof Untold ? 'error' : 'warn';
        log[level]({ err: error }, 'this replica has lost its place among the others and forgets what it kept');
        membership = undefined;
        follower.allChanged();
      }
    }
  }

  const lives = live();
  const removing = members.removeDead(ending.signal);
  const fills = new FillReads(reads, connection, clock);

  return {
    holds: () => membership?.holds() === true,
    read: (keyspace, digest) => {
      if (!membership) throw new StoreFault('unavailable', 'this replica has no place among the others');
      return fills.read(keyspace, digest, membership.position);
    },
    async [Symbol.asyncDispose]() {
      const left = membership;
      membership = undefined;
      ending.abort();
      // Whoever is not told that it has left waits for it, for a lease at the longest.
      const leave = async () => {
        await Promise.all([lives, removing]);
        await left?.leave(Deadline.after(LEAVE_MS_MAX, clock));
      };
      await within(LEAVE_MS_MAX, leave()).catch(() => undefined);
    },
  };
}
