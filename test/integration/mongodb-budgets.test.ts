/** Budgets on a real server: what one statement of the database does is what `takeBudget` says, and no unit is lost. */
import fc from 'fast-check';
import { type Collection, Long, MongoClient } from 'mongodb';
import { expect, inject, test } from 'vitest';

import { type BudgetAsk, type BudgetBlock, type BudgetWindow, takeBudget } from '../../src/keys/budget.js';
import type { Store } from '../../src/store/port.js';
import type { BudgetRow } from '../../src/store/mongodb/rows.js';
import { inOwnDatabase, openReplica, within } from '../support/mongodb-store.js';

const MINUTE_MS = 60_000;
/** A clock that is behind by more than this was set back. */
const STATEMENT_MS_MAX = 5000;

interface Places extends AsyncDisposable {
  readonly stores: readonly [Store, Store];
  readonly budgets: Collection<BudgetRow>;
}

async function openTwo(): Promise<Places> {
  const uri = inOwnDatabase(inject('mongodbUri'));
  const client = new MongoClient(uri);
  const stores = [await openReplica(uri), await openReplica(uri)] as const;
  return {
    stores,
    budgets: client.db().collection('budgets'),
    async [Symbol.asyncDispose]() {
      for (const store of stores) await store[Symbol.asyncDispose]();
      await client.db().dropDatabase();
      await client.close();
    },
  };
}

function asking(fields: Partial<BudgetAsk> = {}): BudgetAsk {
  return { lineageId: 'key_1', windowMs: MINUTE_MS, limit: 100, want: 10, ...fields };
}

const take = (store: Store, ask: BudgetAsk) => store.takeBudget(ask, within(20_000));

/** A window as another replica left it, and the time at which that was. */
async function leave(budgets: Collection<BudgetRow>, { openedAt, taken }: BudgetWindow, leftAt: Date): Promise<void> {
  const row = { opened_at: openedAt, taken: Long.fromNumber(taken), last_taken: Long.ZERO, last_taken_at: leftAt };
  await budgets.replaceOne({ _id: 'key_1' }, row, { upsert: true });
}

async function stored(budgets: Collection<BudgetRow>): Promise<{ window: BudgetWindow; at: Date }> {
  const row = await budgets.findOne({ _id: 'key_1' });
  if (!row) throw new Error('nothing is stored');
  return { window: { openedAt: row.opened_at, taken: Number(row.taken) }, at: row.last_taken_at };
}

test('taking does what the rule says, of whatever was left and whenever', async () => {
  await using places = await openTwo();
  const { stores, budgets } = places;
  const left = fc.record({
    // Negative: the clock was set back since.
    openedAgoMs: fc.oneof(fc.integer({ min: -120_000, max: 120_000 }), fc.constantFrom(-1, 0, 1, MINUTE_MS)),
    leftAgoMs: fc.integer({ min: -120_000, max: 120_000 }),
    // A plan that was made smaller leaves more taken than the limit.
    taken: fc.nat({ max: 300 }),
  });
  const ask = fc.record({
    windowMs: fc.constantFrom(1, 1000, MINUTE_MS),
    limit: fc.integer({ min: 1, max: 200 }),
    want: fc.integer({ min: 1, max: 250 }),
  });
  await fc.assert(
    fc.asyncProperty(
      fc.option(left, { nil: undefined }),
      fc.array(ask, { minLength: 1, maxLength: 3 }),
      async (l, asks) => {
        await budgets.deleteMany({});
        const now = Date.now();
        let before: BudgetWindow | undefined;
        if (l) {
          before = { openedAt: new Date(now - l.openedAgoMs), taken: l.taken };
          await leave(budgets, before, new Date(now - l.leftAgoMs));
        }
        for (const fields of asks) {
          const block = await take(stores[0], asking(fields));
          const after = await stored(budgets);
          expect({ window: after.window, block }).toEqual(takeBudget(before, fields, after.at));
          before = after.window;
        }
      },
    ),
    { numRuns: 150 },
  );
});

test("the time is the server's, and stands still rather than going back for a moment", async () => {
  await using places = await openTwo();
  const { stores, budgets } = places;
  const serverTime = async () => (await take(stores[0], asking({ lineageId: 'key_2' })), await timeOf('key_2'));
  const timeOf = async (_id: string) => (await budgets.findOne({ _id }))?.last_taken_at.getTime() ?? NaN;
  const cases = [
    // Another statement, which began later, was first: its window stays as it was told.
    { aheadMs: STATEMENT_MS_MAX - 1, isKept: true },
    // More than a statement can have waited: the clock was set back, and the window would last for too long.
    { aheadMs: STATEMENT_MS_MAX + 30_000, isKept: false },
  ];
  for (const { aheadMs, isKept } of cases) {
    const ahead = new Date((await serverTime()) + aheadMs);
    await leave(budgets, { openedAt: ahead, taken: 40 }, ahead);
    const block = await take(stores[0], asking());
    const { window, at } = await stored(budgets);
    expect([window.openedAt.getTime() === ahead.getTime(), at.getTime() === ahead.getTime()]).toEqual([isKept, isKept]);
    expect(window.taken).toBe(50);
    expect(block).toEqual({ taken: 10, left: 50, endsInMs: MINUTE_MS });
    expect(at.getTime()).toBeLessThanOrEqual(Math.max(await serverTime(), isKept ? ahead.getTime() : 0));
  }
});

test('whoever takes at once on two replicas gets all that there is, and no more', async () => {
  await using places = await openTwo();
  const { stores, budgets } = places;
  const limit = 500;
  const blocks = await Promise.all(
    Array.from({ length: 120 }, (_, at) => take(at % 2 ? stores[0] : stores[1], asking({ limit, want: 7 }))),
  );
  expect(sumOf(blocks)).toBe(limit);
  // Each was told what was left behind it, none the same.
  const filled = blocks.filter(({ taken }) => taken > 0);
  expect(new Set(filled.map(({ left }) => left)).size).toBe(filled.length);
  expect(Math.min(...filled.map(({ left }) => left))).toBe(0);
  expect((await stored(budgets)).window.taken).toBe(limit);
});

test('of many windows that are opened at once by two replicas, each is opened once', async () => {
  await using places = await openTwo();
  const { stores } = places;
  const lineages = Array.from({ length: 40 }, (_, at) => `key_${at}`);
  const blocks = await Promise.all(
    lineages.flatMap((lineageId) =>
      [stores[0], stores[1], stores[0], stores[1]].map((store) => take(store, asking({ lineageId, limit: 30 }))),
    ),
  );
  expect(sumOf(blocks)).toBe(40 * 30);
});

test('a window that has ended makes room for a whole new one, and never for more', async () => {
  await using places = await openTwo();
  const { stores, budgets } = places;
  const ask = asking({ windowMs: 150, limit: 20, want: 6 });
  const opened = new Set<number>();
  let openings = 0;
  while (opened.size < 5) {
    const blocks = await Promise.all([...stores, ...stores].map((store) => take(store, ask)));
    const { openedAt, taken } = (await stored(budgets)).window;
    expect(taken).toBeLessThanOrEqual(ask.limit);
    for (const { endsInMs, left } of blocks) {
      expect(endsInMs).toBeGreaterThan(0);
      expect(endsInMs).toBeLessThanOrEqual(ask.windowMs);
      expect(left).toBeLessThanOrEqual(ask.limit);
    }
    opened.add(openedAt.getTime());
    openings += blocks.filter(({ left }) => left === ask.limit - ask.want).length;
  }
  expect(openings).toBeGreaterThanOrEqual(opened.size);
  // They follow each other and do not overlap.
  const times = [...opened];
  for (const [at, time] of times.slice(1).entries()) expect(time - (times[at] ?? 0)).toBeGreaterThanOrEqual(150);
});

test('reading takes nothing and opens nothing, and is told what is left', async () => {
  await using places = await openTwo();
  const { stores, budgets } = places;
  const read = (fields: Partial<BudgetAsk> = {}) => stores[1].readBudget(asking(fields), within(5000));
  expect(await read()).toEqual({ taken: 0, left: 100, endsInMs: MINUTE_MS });
  expect(await budgets.countDocuments()).toBe(0);
  await take(stores[0], asking({ want: 30 }));
  const seen = await read();
  expect(seen).toMatchObject({ taken: 0, left: 70 });
  expect(seen.endsInMs).toBeLessThanOrEqual(MINUTE_MS);
  expect(await read({ limit: 20 })).toMatchObject({ left: 0 });
  expect((await stored(budgets)).window.taken).toBe(30);
  // As soon as the window has ended, whoever reads is told of a whole one.
  await take(stores[0], asking({ windowMs: 100 }));
  await expect.poll(() => read({ windowMs: 100 })).toEqual({ taken: 0, left: 100, endsInMs: 100 });
});

function sumOf(blocks: readonly BudgetBlock[]): number {
  return blocks.reduce((sum, { taken }) => sum + taken, 0);
}
