import type { Backlog, Leadership, Outbox } from '../../audit/outbox.js';
import type { AuditEvent } from '../../keys/event.js';
import type { OrganizationRef } from '../../keys/organization.js';
import type { Connection } from './connection.js';
import { type EventRow, fromEventRow } from './rows.js';

/** The outbox, and how the store tells it of commits. */
export function openOutbox(connection: Connection): { outbox: Outbox; tellCommit: () => void } {
  const listeners = new Set<() => void>();
  const pending = preparePending(connection);
  const markPublished = connection.prepare(
    `UPDATE events SET published = 1
     WHERE keyspace = :keyspace AND organization_id = :organization_id AND sequence = :sequence AND published = 0`,
  );
  const reach = connection.prepare(
    `INSERT INTO positions (sink, lane, "end") VALUES (:sink, :lane, :end)
     ON CONFLICT DO UPDATE SET "end" = excluded."end" WHERE excluded."end" > positions."end"`,
  );
  const remember = connection.prepare(
    'INSERT OR REPLACE INTO positions (sink, lane, "end") VALUES (:sink, :lane, :end)',
  );
  const positions = connection.prepare<{ lane: number; end: number }>(
    'SELECT lane, "end" FROM positions WHERE sink = :sink',
  );
  const backlog = connection.prepare<{ depth: number; oldest_time: number | null }>(
    `SELECT count(*) AS depth, min(time) AS oldest_time
     FROM (SELECT time FROM events WHERE published = 0 ORDER BY time LIMIT :limit)`,
  );
  const leadership = connection.prepare<Leadership>('SELECT holder, count FROM leadership');
  const firstLeadership = connection.prepare(
    'INSERT INTO leadership (one, holder, count) VALUES (1, :holder, :count) ON CONFLICT DO NOTHING',
  );
  const nextLeadership = connection.prepare(
    `UPDATE leadership SET holder = :holder, count = :count
     WHERE holder = :expected_holder AND count = :expected_count`,
  );

  const outbox: Outbox = {
    pending: (limit, wanted) => connection.answer(undefined, () => pending(limit, wanted).map(fromEventRow)),

    markPublished: (events, { sink, lane, end }) =>
      connection.answer(undefined, () =>
        connection.transaction(() => {
          for (const event of events) markPublished.run(toPlace(event));
          reach.run({ sink, lane, end });
        }),
      ),

    positions: (sink) =>
      connection.answer(undefined, () => new Map(positions.all({ sink }).map(({ lane, end }) => [lane, end]))),

    remember: (reached) =>
      connection.answer(undefined, () =>
        connection.transaction(() => {
          for (const { sink, lane, end } of reached) remember.run({ sink, lane, end });
        }),
      ),

    backlog: (limit) =>
      connection.answer(undefined, (): Backlog => {
        const { depth = 0, oldest_time = null } = backlog.get({ limit }) ?? {};
        return { depth, ...(oldest_time !== null && { oldestTime: new Date(oldest_time) }) };
      }),

    onCommit(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },

    readLeadership: () =>
      connection.answer(undefined, () => {
        const row = leadership.get({});
        return row && { holder: row.holder, count: row.count };
      }),

    replaceLeadership: (expected, { holder, count }) =>
      connection.answer(undefined, () =>
        connection.transaction(() => {
          const changed = expected
            ? nextLeadership.run({ holder, count, expected_holder: expected.holder, expected_count: expected.count })
            : firstLeadership.run({ holder, count });
          return changed === 1;
        }),
      ),
  };
  return {
    outbox,
    // As microtasks: a listener that fails must not make a committed change look failed.
    tellCommit: () => listeners.forEach((listener) => queueMicrotask(listener)),
  };
}

function preparePending(connection: Connection): (limit: number, wanted?: Wanted) => EventRow[] {
  // An event's time never runs back within its organization, so this has each organization's events in order too.
  const byTime = connection.prepare<EventRow>(
    'SELECT * FROM events WHERE published = 0 ORDER BY time, keyspace, organization_id, sequence LIMIT :limit',
  );
  const ofOrganization = connection.prepare<EventRow>(
    `SELECT * FROM events
     WHERE published = 0 AND keyspace = :keyspace AND organization_id = :organization_id
     ORDER BY sequence LIMIT :limit`,
  );
  const first = (rest: string) =>
    `SELECT * FROM (
       SELECT keyspace, organization_id, time FROM events WHERE published = 0 AND ${rest}
       ORDER BY keyspace, organization_id, sequence LIMIT 1
     )`;
  const nextOldest = connection.prepare<Oldest>(
    `${first('keyspace = :keyspace AND organization_id > :organization_id')}
     UNION ALL ${first('keyspace > :keyspace')} LIMIT 1`,
  );

  /** Each organization's oldest event, found by seeking: what is pending may be millions, of few organizations. */
  function* eachOldest(): Generator<Oldest> {
    let at: Pick<Oldest, 'keyspace' | 'organization_id'> | undefined = { keyspace: '', organization_id: '' };
    while (at) {
      const oldest: Oldest | undefined = nextOldest.get({ keyspace: at.keyspace, organization_id: at.organization_id });
      if (oldest) yield oldest;
      at = oldest;
    }
  }

  return function pending(limit, wanted) {
    const rows = byTime.all({ limit });
    if (!wanted || rows.every((row) => wanted(toRef(row)))) return rows;
    const found: EventRow[] = [];
    const oldestFirst = [...eachOldest()].sort((a, b) => a.time - b.time).filter((oldest) => wanted(toRef(oldest)));
    for (const { keyspace, organization_id } of oldestFirst) {
      if (found.length === limit) break;
      found.push(...ofOrganization.all({ keyspace, organization_id, limit: limit - found.length }));
    }
    // The sort is stable, so it leaves each organization's events in order.
    return found.sort((a, b) => a.time - b.time);
  };
}

type Wanted = (organization: OrganizationRef) => boolean;

interface Oldest {
  keyspace: string;
  organization_id: string;
  time: number;
}

function toRef({ keyspace, organization_id }: Oldest): OrganizationRef {
  return { keyspace, organizationId: organization_id };
}

function toPlace({ keyspace, organizationId, sequence }: AuditEvent) {
  return { keyspace, organization_id: organizationId, sequence };
}
