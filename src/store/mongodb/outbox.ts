import { type Filter, Long } from 'mongodb';

import type { Outbox } from '../../audit/outbox.js';
import { type Clock, Deadline } from '../../keys/clock.js';
import type { AuditEvent } from '../../keys/event.js';
import { type OrganizationRef, organizationPath } from '../../keys/organization.js';
import type { Ask, Connection } from './connection.js';
import { type EventRow, fromEventRow, toPositionRowId } from './rows.js';
import type { Collections } from './schema.js';
import { isDuplicateKey } from './trouble.js';

/** Nobody waits for these calls with a deadline of its own. */
const CALL_MS_MAX = 5000;

export function openOutbox(
  connection: Connection,
  { events, relay, positions }: Collections,
  clock: Clock,
): { outbox: Outbox; tellCommit: () => void } {
  const listeners = new Set<() => void>();
  const inTime = () => Deadline.after(CALL_MS_MAX, clock);
  const asking = <T>(work: (ask: Ask) => Promise<T>) => connection.run(() => work(connection.ask(inTime())));

  const outbox: Outbox = {
    pending: (limit, wanted = () => true) =>
      // A scan that yields can see an event and have missed the one before it, which was committed earlier.
      connection.run(() => connection.atOneMoment(inTime(), (ask) => readPending(ask, limit, wanted))),

    // First the marks: a position vouches for events, and must not be ahead of what is known of them. One that a crash
    // leaves behind makes a start read a little more of the sink.
    markPublished: (published, reached) =>
      connection.run(async () => {
        const deadline = inTime();
        if (published.length > 0) {
          const filter = { _id: { $in: published.map(({ eventId }) => eventId) } };
          await connection.ask(deadline)((bounds) => events.updateMany(filter, { $set: { published: true } }, bounds));
        }
        const further = { $max: { end: Long.fromNumber(reached.end) } };
        await connection.upsert(deadline, (bounds) =>
          positions.updateOne({ _id: toPositionRowId(reached) }, further, { ...bounds, upsert: true }),
        );
      }),

    positions: (sink) =>
      asking(async (ask) => {
        // A range of whole ids, for which there is an index; for a part of the id there is none.
        const ofSink = { $gte: { sink, lane: 0 }, $lte: { sink, lane: Number.POSITIVE_INFINITY } };
        const rows = await ask((bounds) => positions.find({ _id: ofSink }, bounds).toArray());
        return new Map(rows.map(({ _id: { lane }, end }) => [Number(lane), Number(end)]));
      }),

    remember: (reached) =>
      connection.run(async () => {
        const deadline = inTime();
        for (const position of reached) {
          const exactly = { $set: { end: Long.fromNumber(position.end) } };
          await connection.upsert(deadline, (bounds) =>
            positions.updateOne({ _id: toPositionRowId(position) }, exactly, { ...bounds, upsert: true }),
          );
        }
      }),

    backlog: (limit) =>
      asking(async (ask) => {
        const [counted] = await ask((bounds) =>
          events
            .aggregate<{ depth: number; oldest_time: Date }>(
              [
                { $match: { published: false } },
                { $sort: IN_ORDER },
                { $limit: limit },
                { $group: { _id: null, depth: { $sum: 1 }, oldest_time: { $min: '$time' } } },
              ],
              bounds,
            )
            .toArray(),
        );
        return counted ? { depth: counted.depth, oldestTime: counted.oldest_time } : { depth: 0 };
      }),

    onCommit(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },

    readLeadership: () =>
      asking(async (ask) => {
        const row = await ask((bounds) => relay.findOne({ _id: 'leader' }, bounds));
        return row ? { holder: row.holder, count: Number(row.count) } : undefined;
      }),

    replaceLeadership: (expected, next) =>
      asking(async (ask) => {
        const row = { holder: next.holder, count: Long.fromNumber(next.count) };
        if (!expected) return ask((bounds) => relay.insertOne({ _id: 'leader', ...row }, bounds)).then(isTrue, isTaken);
        const asExpected = { _id: 'leader' as const, holder: expected.holder, count: expected.count };
        const { matchedCount } = await ask((bounds) => relay.updateOne(asExpected, { $set: row }, bounds));
        return matchedCount === 1;
      }),
  };

  async function readPending(
    ask: Ask,
    limit: number,
    wanted: (organization: OrganizationRef) => boolean,
  ): Promise<AuditEvent[]> {
    const found: AuditEvent[] = [];
    const passedOver = new Set<string>();
    let after: EventRow | undefined;
    for (;;) {
      const filter = pendingAfter(after, passedOver);
      const rows = await ask((bounds) => events.find(filter, bounds).sort(IN_ORDER).limit(limit).toArray());
      for (const row of rows) {
        const event = fromEventRow(row);
        if (!wanted(event)) passedOver.add(organizationPath(event));
        else if (found.push(event) === limit) return found;
      }
      after = rows.at(-1);
      if (!after || rows.length < limit) return found;
    }
  }

  return {
    outbox,
    // As microtasks: a listener that fails must not make a committed change look failed.
    tellCommit: () => listeners.forEach((listener) => queueMicrotask(listener)),
  };
}

/** By time, and each organization's by sequence, since no event is earlier than the one before it. */
const IN_ORDER = { time: 1, organization: 1, sequence: 1 } as const;

function pendingAfter(after: EventRow | undefined, passedOver: ReadonlySet<string>): Filter<EventRow> {
  return {
    published: false,
    ...(passedOver.size > 0 && { organization: { $nin: [...passedOver] } }),
    ...(after && {
      time: { $gte: after.time },
      $or: [
        { time: { $gt: after.time } },
        { organization: { $gt: after.organization } },
        { organization: after.organization, sequence: { $gt: after.sequence } },
      ],
    }),
  };
}

const isTrue = () => true;

function isTaken(error: unknown): boolean {
  if (isDuplicateKey(error)) return false;
  throw error;
}
