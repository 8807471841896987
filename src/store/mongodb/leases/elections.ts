import type { Deadline } from '../../../keys/clock.js';
import type { Log } from '../../../log.js';
import type { Connection } from '../connection.js';

/**
 * Measured: after its primary is lost, a set with `electionTimeoutMillis` 4000 takes writes again within 7.4 s, and with
 * the default of 10,000 within 18 s; and a lease that is about to be renewed is a fifth shorter.
 */
const LEASE_PER_ELECTION = 3;

interface SetConfig {
  readonly config?: { readonly members?: readonly unknown[]; readonly settings?: { electionTimeoutMillis?: number } };
}

/** Says so where verifications will fall back on the database whenever the set loses its primary. */
export async function checkElections(
  connection: Connection,
  leaseMs: number,
  deadline: Deadline,
  log: Pick<Log, 'warn'>,
): Promise<void> {
  const electionMs = await electionTimeout(connection, deadline);
  const neededMs = electionMs * LEASE_PER_ELECTION;
  if (leaseMs >= neededMs) return;
  log.warn(
    { lease_ms: leaseMs, election_timeout_ms: electionMs },
    `leases do not outlast an election: let electionTimeoutMillis be ${Math.floor(leaseMs / LEASE_PER_ELECTION)} at most (docs/revocation.md), or KEYREEVE_LEASE_MS ${neededMs}`,
  );
}

/** 0 where there is nobody to elect, or the service may not ask. */
async function electionTimeout(connection: Connection, deadline: Deadline): Promise<number> {
  try {
    const { config } = (await connection.ask(deadline)(({ maxTimeMS }) =>
      connection.admin.command({ replSetGetConfig: 1, maxTimeMS }),
    )) as SetConfig;
    return (config?.members?.length ?? 0) > 1 ? (config?.settings?.electionTimeoutMillis ?? 0) : 0;
  } catch {
    // It is advice: a user without the privilege is served without it.
    return 0;
  }
}
