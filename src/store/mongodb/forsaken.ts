import type { UUID } from 'mongodb';

import type { Deadline } from '../../keys/clock.js';
import type { Connection } from './connection.js';

/** Between two statements of a replica that lives lie milliseconds. */
const IDLE_MS = 2000;

/**
 * Ends transactions of this service that nobody will end: those of a replica that was killed in the middle of one, and
 * those begun by a statement that a paused primary carried out when its sender had given it up. The server itself lets
 * each hold its organization for a minute (`transactionLifetimeLimitSeconds`). Ending one is safe, whoever has it: a
 * replica that was only slow is told so when it goes on, and begins anew.
 */
export async function endForsaken(connection: Connection, deadline: Deadline): Promise<void> {
  const pipeline = [
    // Those of one's own user, which need no privilege.
    { $currentOp: { idleSessions: true, allUsers: false } },
    {
      $match: {
        type: 'idleSession',
        appName: connection.appName,
        'transaction.timeInactiveMicros': { $gt: IDLE_MS * 1000 },
      },
    },
  ];
  try {
    const forsaken = await connection.ask(deadline)((bounds) =>
      connection.admin.aggregate<{ lsid: { id: UUID } }>(pipeline, bounds).toArray(),
    );
    if (forsaken.length === 0) return;
    const killSessions = forsaken.map(({ lsid }) => ({ id: lsid.id }));
    await connection.ask(deadline)(({ maxTimeMS }) => connection.admin.command({ killSessions, maxTimeMS }));
  } catch {
    // The change that stands behind it goes on trying, and says how that ended.
  }
}
