/** Rate budgets, with time and the network to the store in the test's hands. */
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';

import { type Clock, Deadline } from '../../src/keys/clock.js';
import { StoreFault } from '../../src/store/faults.js';
import { type Admission, Budgets } from '../../src/verify/budgets.js';
import { BudgetServer } from '../support/budget-server.js';

const WINDOW_MS = 60_000;
const LINEAGE = 'key_1';

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'Date', 'performance'], now: 1_700_000_000_000 });
});
afterEach(() => {
  vi.useRealTimers();
});

/** A clock that a test may set; the monotonic side of it goes on by itself. */
function settableClock(): Clock & { offsetMs: number } {
  return {
    offsetMs: 0,
    now() {
      return new Date(Date.now() + this.offsetMs);
    },
    monotonicMs: () => performance.now(),
  };
}

class Replica {
  readonly clock = settableClock();
  readonly #server: BudgetServer;
  readonly #isShared: boolean;
  budgets: Budgets;

  constructor(server: BudgetServer, isShared = true) {
    this.#server = server;
    this.#isShared = isShared;
    this.budgets = this.#open();
  }

  /** All that it holds is gone. */
  crash(): void {
    this.budgets = this.#open();
  }

  admit(limit: number, { withinMs = 30_000, lineageId = LINEAGE } = {}): Promise<Admission> {
    return this.budgets.admit(lineageId, limit, Deadline.after(withinMs, this.clock));
  }

  look(limit: number) {
    return this.budgets.look(LINEAGE, limit, Deadline.after(30_000, this.clock));
  }

  #open(): Budgets {
    return new Budgets({ store: this.#server.connect(this.#isShared), clock: this.clock });
  }
}

function start({ replicas = 1, isShared = true } = {}) {
  const server = new BudgetServer();
  const started = Array.from({ length: replicas }, () => new Replica(server, isShared));
  const [replica] = started;
  if (!replica) throw new Error('no replica');
  return { server, replica, replicas: started };
}

/** One after the other. */
async function admitTimes(replica: Replica, times: number, limit: number): Promise<Admission[]> {
  const answers: Admission[] = [];
  for (let n = 0; n < times; n += 1) answers.push(await replica.admit(limit));
  return answers;
}

const admitted = (answers: readonly Admission[]) => answers.filter((answer) => answer.admitted).length;

describe('what is admitted', () => {
  test('is never more than the limit within a window of the store, whatever becomes of replicas, clocks and network', async () => {
    const replica = fc.nat({ max: 2 });
    const ms = (max: number) => fc.oneof(fc.constant(0), fc.nat({ max: 50 }), fc.nat({ max }));
    const step = fc.oneof(
      { weight: 4, arbitrary: fc.record({ wait: ms(20_000) }) },
      { weight: 6, arbitrary: fc.record({ requests: fc.integer({ min: 1, max: 12 }), replica }) },
      { weight: 1, arbitrary: fc.record({ crash: replica }) },
      { weight: 1, arbitrary: fc.record({ setClock: fc.integer({ min: -120_000, max: 120_000 }), replica }) },
      { weight: 1, arbitrary: fc.record({ setStoreBackMs: fc.nat({ max: 90_000 }) }) },
      {
        weight: 2,
        arbitrary: fc.record({
          network: fc.record({
            thereMs: ms(90_000),
            backMs: ms(90_000),
            loses: fc.constantFrom('nothing', 'nothing', 'calls', 'answers'),
          }),
        }),
      },
    );
    let mostInAWindow = 0;
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 40 }),
        fc.array(step, { minLength: 10, maxLength: 60 }),
        async (limit, steps) => {
          const { server, replicas } = start({ replicas: 3 });
          const entries: Entry[] = [];
          for (const taken of steps) {
            if ('wait' in taken) await vi.advanceTimersByTimeAsync(taken.wait);
            else if ('crash' in taken) replicas[taken.crash]?.crash();
            else if ('network' in taken) Object.assign(server.network, taken.network);
            else if ('setStoreBackMs' in taken) server.offsetMs -= taken.setStoreBackMs;
            else if ('setClock' in taken) {
              const clock = replicas[taken.replica]?.clock;
              if (clock) clock.offsetMs += taken.setClock;
            } else {
              for (let n = 0; n < taken.requests; n += 1) enter(replicas[taken.replica], limit, entries);
            }
          }
          Object.assign(server.network, { thereMs: 0, backMs: 0, loses: 'nothing' });
          await vi.advanceTimersByTimeAsync(200_000);
          const counts = countByWindow(server.openings, entries, limit);
          mostInAWindow = Math.max(mostInAWindow, ...counts.map((count) => count / limit));
          for (const count of counts) expect(count).toBeLessThanOrEqual(limit);
        },
      ),
      { numRuns: 400 },
    );
    // The schedules do reach it.
    expect(mostInAWindow).toBe(1);
  }, 120_000);

  test.each([1, 2, 6, 7, 9, 10, 59, 60, 1000])(
    'is all of a limit of %i where one replica serves and more is asked for, shared store or not',
    async (limit) => {
      for (const isShared of [true, false]) {
        const { replica } = start({ isShared });
        expect(admitted(await admitTimes(replica, limit + 20, limit))).toBe(limit);
        await vi.advanceTimersByTimeAsync(WINDOW_MS + 1);
        expect(admitted(await Promise.all(Array.from({ length: limit * 2 }, () => replica.admit(limit))))).toBe(limit);
      }
    },
  );

  test('is 85 % or more where three replicas share a key at 9 : 1 : 0, and more is asked for', async () => {
    const ten = [0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 300 }),
        fc.integer({ min: 11, max: 40 }),
        fc.shuffledSubarray(ten, { minLength: 10 }),
        async (limit, demandTenths, order) => {
          const { replicas } = start({ replicas: 3 });
          let count = 0;
          for (let n = 0; n < (limit * demandTenths) / 10; n += 1) {
            const answer = await replicas[order[n % 10] ?? 0]?.admit(limit);
            if (answer?.admitted) count += 1;
          }
          expect(count).toBeGreaterThanOrEqual(limit * 0.85);
          expect(count).toBeLessThanOrEqual(limit);
        },
      ),
      { numRuns: 200 },
    );
  });

  test('goes on within what was taken while the store is away, and no further', async () => {
    const { server, replica } = start();
    await admitTimes(replica, 3, 60); // of a block of 6
    server.network.loses = 'calls';
    const answers = await admitTimes(replica, 3, 60);
    expect(answers.map(({ standing }) => standing.remaining)).toEqual([2, 1, 0]);
    expect(admitted(answers)).toBe(3);
    await expect(replica.admit(60)).rejects.toThrow(StoreFault);
    server.network.loses = 'nothing';
    expect((await replica.admit(60)).admitted).toBe(true);
  });

  test('is bounded by a changed limit at once, a lower one and a higher one', async () => {
    const { replica } = start();
    expect(admitted(await admitTimes(replica, 30, 100))).toBe(30);
    // A block of 10 is in hand by then.
    expect(admitted(await admitTimes(replica, 20, 35))).toBe(5);
    expect((await replica.admit(20)).admitted).toBe(false);
    expect(admitted(await admitTimes(replica, 100, 60))).toBeGreaterThanOrEqual(20);
  });

  test('above a smaller limit, which was all that was asked for, is not told once the limit rises', async () => {
    const { replica } = start({ isShared: false });
    expect(admitted(await admitTimes(replica, 100, 300))).toBe(100);
    replica.crash();
    expect((await replica.admit(10)).admitted).toBe(false);
    // The block in hand was lost in the crash.
    expect((await replica.look(300)).remaining).toBe(180);
    expect((await replica.admit(300)).standing.remaining).toBe(179);
  });

  test('with two replicas that both lower the limit, is no more than the lower one', async () => {
    const { replicas } = start({ replicas: 2 });
    const [one, other] = replicas as [Replica, Replica];
    let count = admitted(await admitTimes(one, 25, 100)) + admitted(await admitTimes(other, 25, 100));
    for (const replica of [one, other, one]) count += admitted(await admitTimes(replica, 50, 60));
    expect(count).toBeLessThanOrEqual(60);
  });

  test('of a block whose answer came late is nothing once the window may have ended, though the clock was set back', async () => {
    const { server, replicas } = start({ replicas: 2 });
    const [late, other] = replicas as [Replica, Replica];
    server.network.backMs = 20_000;
    const first = late.admit(60);
    await vi.advanceTimersByTimeAsync(20_000);
    expect((await first).admitted).toBe(true);
    late.clock.offsetMs -= 1_000_000;
    server.network.backMs = 0;
    await vi.advanceTimersByTimeAsync(40_000);
    const both = [await admitTimes(other, 100, 60), await admitTimes(late, 100, 60)];
    expect(admitted(both.flat())).toBe(60);
  });

  test('of a block taken before the machine slept is nothing', async () => {
    const { server, replica } = start();
    await replica.admit(60);
    const { take } = server.calls;
    replica.clock.offsetMs += WINDOW_MS; // the monotonic clock stood still
    await replica.admit(60);
    expect(server.calls.take).toBe(take + 1);
  });
});

describe('the store', () => {
  test('is not called while a block lasts, nor once the window is known to be spent', async () => {
    const { server, replica } = start();
    await replica.admit(60);
    expect(server.calls.take).toBe(1);
    await admitTimes(replica, 4, 60);
    expect(server.calls.take).toBe(1);
    await admitTimes(replica, 55, 60);
    expect(server.calls.take).toBe(10);
    expect(admitted(await admitTimes(replica, 500, 60))).toBe(0);
    await vi.advanceTimersByTimeAsync(WINDOW_MS - 1000);
    expect(admitted(await admitTimes(replica, 500, 60))).toBe(0);
    expect(server.calls).toEqual({ take: 10, read: 0 });
  });

  test('is asked once, not again and again, for a request that comes as a spent window is about to end', async () => {
    const { server, replica } = start();
    expect(admitted(await admitTimes(replica, 60, 60))).toBe(60);
    // By the cautious reckoning the window has ended, by the store's own it has not.
    await vi.advanceTimersByTimeAsync(59_980);
    const before = server.calls.take;
    expect(await replica.admit(60)).toMatchObject({ admitted: false, standing: { remaining: 0 } });
    expect(server.calls.take).toBe(before + 1);
    await vi.advanceTimersByTimeAsync(100);
    expect((await replica.admit(60)).admitted).toBe(true);
  });

  test('is asked once for all who wait', async () => {
    const { server, replica } = start();
    server.network.backMs = 100;
    const answers = Array.from({ length: 6 }, () => replica.admit(60));
    await vi.advanceTimersByTimeAsync(99);
    expect(server.calls.take).toBe(1);
    await vi.advanceTimersByTimeAsync(500);
    expect(admitted(await Promise.all(answers))).toBe(6);
  });

  test('that does not answer fails each who waits at its own deadline, and its late block is used', async () => {
    const { server, replica } = start();
    server.network.backMs = 1000;
    const [hurried, patient] = [replica.admit(60, { withinMs: 100 }), replica.admit(60, { withinMs: 5000 })];
    const failed = expect(hurried).rejects.toThrow(StoreFault);
    await vi.advanceTimersByTimeAsync(101);
    await failed;
    await vi.advanceTimersByTimeAsync(900);
    expect((await patient).admitted).toBe(true);
    expect(server.calls.take).toBe(1);
  });

  test('is told of no denial', async () => {
    const { server, replica } = start();
    expect(await replica.look(60)).toEqual({ limit: 60, remaining: 60, windowMs: WINDOW_MS });
    expect(server.calls).toEqual({ take: 0, read: 1 });
    expect(server.left(LINEAGE, 60, WINDOW_MS)).toBe(60);
  });
});

describe('what is told', () => {
  test('counts down without a gap where no one else takes from the store', async () => {
    const { server, replica } = start({ isShared: false });
    const answers = await admitTimes(replica, 60, 60);
    expect(answers.map(({ standing }) => standing.remaining)).toEqual(Array.from({ length: 60 }, (_, n) => 59 - n));
    expect(await replica.look(60)).toMatchObject({ remaining: 0 });
    expect(server.calls.read).toBe(0);
  });

  test('is 0 remaining only where the window is spent, and never more than is left', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 7, max: 200 }),
        fc.array(fc.tuple(fc.nat({ max: 2 }), fc.integer({ min: 1, max: 20 })), { minLength: 1, maxLength: 40 }),
        async (limit, bursts) => {
          const { server, replicas } = start({ replicas: 3 });
          for (const [at, times] of bursts) {
            const replica = replicas[at];
            if (!replica) continue;
            const answers = await Promise.all(Array.from({ length: times }, () => replica.admit(limit)));
            const last = answers.at(-1);
            if (!last?.admitted) continue;
            if (last.standing.remaining === 0) expect(server.left(LINEAGE, limit, WINDOW_MS)).toBe(0);
            // So many more really are admitted.
            const more = await admitTimes(replica, last.standing.remaining, limit);
            expect(admitted(more)).toBe(last.standing.remaining);
          }
        },
      ),
      { numRuns: 100 },
    );
  });

  test('as the time to come back is never too early, nor as the end of the window, however slow the store answers', async () => {
    for (const [thereMs, backMs] of [
      [0, 0],
      [2000, 0],
      [0, 2000],
      [700, 900],
    ] as const) {
      const { server, replica } = start();
      Object.assign(server.network, { thereMs, backMs });
      const answers = Array.from({ length: 61 }, () => replica.admit(60));
      await vi.advanceTimersByTimeAsync(30_000);
      const refused = (await Promise.all(answers)).find((answer) => !answer.admitted);
      if (!refused) throw new Error('none was refused');
      const { standing } = refused;
      const again = await replica.admit(60);
      if (again.admitted) throw new Error('admitted');
      expect(standing.resetTime?.getTime()).toBeGreaterThanOrEqual((server.openings[0] ?? 0) + WINDOW_MS);
      expect(again.standing.resetTime).toEqual(standing.resetTime);
      await vi.advanceTimersByTimeAsync(again.retryAfterMs);
      Object.assign(server.network, { thereMs: 0, backMs: 0 });
      const back = replica.admit(60);
      await vi.advanceTimersByTimeAsync(10_000);
      expect((await back).admitted).toBe(true);
      expect(server.openings).toHaveLength(2);
    }
  });

  test('of a denial is what is known here, else what the store says, else that nothing is sure to remain', async () => {
    const { server, replicas } = start({ replicas: 2 });
    const [one, other] = replicas as [Replica, Replica];
    await admitTimes(one, 2, 60);
    expect(await one.look(60)).toMatchObject({ remaining: 4, resetTime: new Date(Date.now() + WINDOW_MS) });
    expect(server.calls.read).toBe(0);
    expect(await other.look(60)).toMatchObject({ remaining: 54, resetTime: new Date(Date.now() + WINDOW_MS) });
    server.network.loses = 'calls';
    expect(await other.look(60)).toEqual({ limit: 60, remaining: 0, windowMs: WINDOW_MS });
  });
});

test('windows that have ended are forgotten', async () => {
  const { replica } = start();
  for (let n = 0; n < 100; n += 1) await replica.admit(60, { lineageId: `key_${n}` });
  expect(replica.budgets.size).toBe(100);
  await vi.advanceTimersByTimeAsync(WINDOW_MS + 1);
  await replica.admit(60, { lineageId: 'key_new' });
  expect(replica.budgets.size).toBe(1);
});

interface Entry {
  /** Between these it was decided to admit it, on the monotonic clock. */
  readonly fromMs: number;
  readonly untilMs: number;
}

/** How long an answer may be held up after its request was admitted. */
const HELD_UP_MS = 200;

function enter(replica: Replica | undefined, limit: number, entries: Entry[]): void {
  const sentMs = performance.now();
  void replica?.admit(limit).then(
    (answer) => {
      const untilMs = performance.now();
      if (answer.admitted) entries.push({ fromMs: Math.max(sentMs, untilMs - HELD_UP_MS), untilMs });
    },
    () => undefined,
  );
}

/** Admissions by window, each in the first that it can belong to and that has room: so one too many shows. */
function countByWindow(openings: readonly number[], entries: readonly Entry[], limit: number): number[] {
  const counts = openings.map(() => 0);
  for (const { fromMs, untilMs } of entries.toSorted((a, b) => a.untilMs - b.untilMs)) {
    const last = openings.findLastIndex((opening) => opening <= untilMs);
    const first = Math.max(
      0,
      openings.findLastIndex((opening) => opening <= fromMs),
    );
    let at = first;
    while (at < last && (counts[at] ?? 0) >= limit) at += 1;
    counts[at] = (counts[at] ?? 0) + 1;
  }
  return counts;
}
