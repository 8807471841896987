/**
 * What is written beside the changes, and makes no event: when keys were last used, the form of their digests, budgets
 * and peppers. Each write is one statement on one document, or can be made again.
 */
import { Binary, type Document, Int32, Long } from 'mongodb';

import { type BudgetAsk, type BudgetBlock, takeBudget } from '../../keys/budget.js';
import type { Deadline } from '../../keys/clock.js';
import type { Digest } from '../../keys/digest.js';
import { StoreFault } from '../faults.js';
import { type Ask, type Connection, STATEMENT_MS_MAX } from './connection.js';
import { type BudgetRow, UNREVOKED, toDigestFields } from './rows.js';
import { type Collections, collectionsOf } from './schema.js';
import { untilCommitted } from './transaction.js';

const USES_AT_ONCE = 1000;

export function makeBookkeeping(connection: Connection, { keys, last_uses, budgets, peppers }: Collections) {
  return {
    /** May have written some of them where it fails: writing them again is harmless. */
    async recordUses(uses: ReadonlyMap<string, Date>, deadline: Deadline): Promise<void> {
      const all = [...uses];
      try {
        for (let from = 0; from < all.length; from += USES_AT_ONCE) {
          const some = all.slice(from, from + USES_AT_ONCE);
          await untilCommitted(connection, deadline, async (transaction) => {
            await recordSome(some, transaction.ask);
            await transaction.commit();
          });
        }
      } catch (error) {
        // Contention, too: it would say that nothing was written.
        if (!(error instanceof StoreFault)) throw error;
        throw new StoreFault('unavailable', 'not all last uses were written before the deadline', { cause: error });
      }
    },

    /** Leaves the revision alone. A change of the key that is under way meets it in the database, and is tried again. */
    async moveDigest(keyId: string, from: Digest, to: Digest, deadline: Deadline): Promise<void> {
      const asStored = { _id: keyId, digest: new Binary(from.bytes) };
      await connection.ask(deadline)((bounds) => keys.updateOne(asStored, { $set: toDigestFields(to) }, bounds));
    },

    async countDigests(deadline: Deadline): Promise<ReadonlyMap<number, number>> {
      const counted = await connection.askPatiently(deadline, (db, maxTimeMS) =>
        collectionsOf(db)
          .keys.aggregate<{ _id: number; count: number }>(
            [{ $match: { standing: { $in: UNREVOKED } } }, { $group: { _id: '$pepper_version', count: { $sum: 1 } } }],
            { maxTimeMS },
          )
          .toArray(),
      );
      return new Map(counted.map(({ _id, count }) => [_id, count]));
    },

    async hasDigests(pepperVersion: number, deadline: Deadline): Promise<boolean> {
      const filter = { standing: { $in: UNREVOKED }, pepper_version: pepperVersion };
      // The index skips from keyspace to keyspace.
      const one = { projection: { _id: 1 }, hint: 'standing' };
      return (await connection.ask(deadline)((bounds) => keys.findOne(filter, { ...bounds, ...one }))) !== null;
    },

    /**
     * One statement, which the driver may send again without taking twice. Answered from what it wrote, once that cannot
     * be lost any more.
     */
    async takeBudget({ lineageId, windowMs, limit, want }: BudgetAsk, deadline: Deadline): Promise<BudgetBlock> {
      const row = await connection.upsert(deadline, (bounds) =>
        budgets.findOneAndUpdate({ _id: lineageId }, taking(windowMs, limit, want), {
          ...bounds,
          upsert: true,
          returnDocument: 'after',
        }),
      );
      if (!row) throw new Error('an upsert left no document');
      return {
        taken: Number(row.last_taken),
        left: Math.max(0, limit - Number(row.taken)),
        endsInMs: row.opened_at.getTime() + windowMs - row.last_taken_at.getTime(),
      };
    },

    async readBudget(ask: Omit<BudgetAsk, 'want'>, deadline: Deadline): Promise<BudgetBlock> {
      const [row] = await connection.ask(deadline)((bounds) =>
        budgets
          .aggregate<BudgetRow & { now: Date }>(
            [{ $match: { _id: ask.lineageId } }, { $set: { now: SERVER_TIME } }],
            bounds,
          )
          .toArray(),
      );
      const stored = row && { openedAt: row.opened_at, taken: Number(row.taken) };
      // Where nothing is stored, no time matters: a window would open now.
      return takeBudget(stored, { ...ask, want: 0 }, row?.now ?? new Date(0)).block;
    },

    pepperFingerprints,

    async rememberPeppers(fingerprints: ReadonlyMap<number, string>, deadline: Deadline): Promise<void> {
      // First all are compared: of peppers that contradict what is remembered none is.
      const remembered = await pepperFingerprints(deadline);
      for (const [version, fingerprint] of fingerprints) compare(version, fingerprint, remembered.get(version));
      for (const [version, fingerprint] of fingerprints) {
        const row = await connection.upsert(deadline, (bounds) =>
          peppers.findOneAndUpdate(
            { _id: new Int32(version) },
            { $setOnInsert: { fingerprint } },
            { ...bounds, upsert: true, returnDocument: 'after' },
          ),
        );
        compare(version, fingerprint, row?.fingerprint);
      }
    },
  };

  /**
   * One statement for all that were used in the same millisecond, and one for all that are used for the first time. In a
   * transaction, which reaches the other members as one entry of their log: they work half as long on it as on an entry
   * for each.
   */
  async function recordSome(uses: readonly (readonly [keyId: string, time: Date])[], ask: Ask): Promise<void> {
    const used = new Map<number, string[]>();
    for (const [keyId, time] of uses) {
      const together = used.get(time.getTime());
      if (together) together.push(keyId);
      else used.set(time.getTime(), [keyId]);
    }
    const later = [...used].map(([ms, keyIds]) => ({
      updateMany: { filter: { _id: { $in: keyIds } }, update: { $max: { time: new Date(ms) } } },
    }));
    const { matchedCount } = await ask((bounds) => last_uses.bulkWrite(later, { ...bounds, ordered: false }));
    if (matchedCount === uses.length) return;
    const all = { _id: { $in: uses.map(([keyId]) => keyId) } };
    const known = await ask((bounds) => last_uses.find(all, bounds).toArray());
    const knownIds = new Set(known.map(({ _id }) => _id));
    // What another replica inserts meanwhile is a conflict of the transactions, and no duplicate.
    const first = uses.filter(([keyId]) => !knownIds.has(keyId)).map(([_id, time]) => ({ _id, time }));
    await ask((bounds) => last_uses.insertMany(first, { ...bounds, ordered: false }));
  }

  async function pepperFingerprints(deadline: Deadline): Promise<ReadonlyMap<number, string>> {
    const rows = await connection.ask(deadline)((bounds) => peppers.find({}, bounds).toArray());
    return new Map(rows.map(({ _id, fingerprint }) => [Number(_id), fingerprint]));
  }
}

/** When these keys were last used; keys that never were are absent. */
export async function lastUsesOf(
  ask: Ask,
  { last_uses }: Pick<Collections, 'last_uses'>,
  keyIds: readonly string[],
): Promise<ReadonlyMap<string, Date>> {
  if (keyIds.length === 0) return new Map();
  const rows = await ask((bounds) => last_uses.find({ _id: { $in: [...new Set(keyIds)] } }, bounds).toArray());
  return new Map(rows.map(({ _id, time }) => [_id, time]));
}

/**
 * The server's clock. A statement keeps the time at which it began, and may have waited for others that began later: it
 * then goes by theirs. Taken for a clock that was set back, it would open their window anew, a little earlier, and so
 * end it before the time that they were told. A clock that is behind by more than any statement lasts was set back.
 */
const SERVER_TIME = {
  $cond: [
    {
      $and: [{ $gt: ['$last_taken_at', '$$NOW'] }, { $lte: ['$last_taken_at', { $add: ['$$NOW', STATEMENT_MS_MAX] }] }],
    },
    '$last_taken_at',
    '$$NOW',
  ],
};

/** `takeBudget` in the words of the database. */
function taking(windowMs: number, limit: number, want: number): Document[] {
  // False also where there is no window: nothing is less than a sum of which a part is missing.
  const isOpen = { $lt: ['$last_taken_at', { $add: ['$opened_at', windowMs] }] };
  const isKept = { $and: [isOpen, { $lte: ['$opened_at', '$last_taken_at'] }] };
  const given = { $min: [Long.fromNumber(want), { $subtract: [Long.fromNumber(limit), '$taken'] }] };
  return [
    { $set: { last_taken_at: SERVER_TIME } },
    {
      $set: {
        opened_at: { $cond: [isKept, '$opened_at', '$last_taken_at'] },
        taken: { $cond: [isOpen, '$taken', Long.ZERO] },
      },
    },
    { $set: { last_taken: { $max: [Long.ZERO, given] } } },
    { $set: { taken: { $add: ['$taken', '$last_taken'] } } },
  ];
}

function compare(version: number, fingerprint: string, remembered: string | undefined): void {
  if (remembered === undefined || remembered === fingerprint) return;
  throw new Error(`version ${version} of the pepper was another one when it was in use here`);
}
