import fc from 'fast-check';
import { expect, test } from 'vitest';

import { type BudgetBlock, type BudgetWindow, takeBudget } from '../../src/keys/budget.js';
import { noon } from '../support/domain.js';

const WINDOW_MS = 60_000;
const later = (ms: number): Date => new Date(noon.getTime() + ms);
const take = (stored: BudgetWindow | undefined, ms: number, want: number, limit = 10) =>
  takeBudget(stored, { windowMs: WINDOW_MS, limit, want }, later(ms));

test('a window opens when it is first taken from, and lasts its full time', () => {
  const first = take(undefined, 0, 4);
  expect(first).toEqual({
    window: { openedAt: noon, taken: 4 },
    block: { taken: 4, left: 6, endsInMs: WINDOW_MS },
  });
  const second = take(first.window, 1000, 4);
  expect(second).toEqual({
    window: { openedAt: noon, taken: 8 },
    block: { taken: 4, left: 2, endsInMs: WINDOW_MS - 1000 },
  });
  const last = take(second.window, WINDOW_MS - 1, 4);
  expect(last.block).toEqual({ taken: 2, left: 0, endsInMs: 1 });
  expect(take(last.window, WINDOW_MS - 1, 4).block).toEqual({ taken: 0, left: 0, endsInMs: 1 });
  const next = take(last.window, WINDOW_MS, 4);
  expect(next).toEqual({
    window: { openedAt: later(WINDOW_MS), taken: 4 },
    block: { taken: 4, left: 6, endsInMs: WINDOW_MS },
  });
});

test('with nothing wanted it tells of a window and takes nothing', () => {
  expect(take(undefined, 0, 0).block).toEqual({ taken: 0, left: 10, endsInMs: WINDOW_MS });
  const { window } = take(undefined, 0, 4);
  expect(take(window, 500, 0)).toEqual({ window, block: { taken: 0, left: 6, endsInMs: WINDOW_MS - 500 } });
});

test('a limit that changes in the middle of a window holds from then on, and takes nothing back', () => {
  const { window } = take(undefined, 0, 8);
  expect(take(window, 1, 5, 3)).toMatchObject({ window: { taken: 8 }, block: { taken: 0, left: 0 } });
  expect(take(window, 1, 5, 12)).toMatchObject({ window: { taken: 12 }, block: { taken: 4, left: 0 } });
});

test('where the clock was set back the window goes on, with what was taken of it, and ends in its full time at last', () => {
  const { window } = take(undefined, 0, 8);
  const back = take(window, -3_600_000, 5);
  expect(back.window).toEqual({ openedAt: later(-3_600_000), taken: 10 });
  expect(back.block).toEqual({ taken: 2, left: 0, endsInMs: WINDOW_MS });
  expect(take(back.window, -3_600_000 + WINDOW_MS, 5).block.taken).toBe(5);
});

test('no window ever gives more than its limit, and what it gives, keeps and has given adds up', () => {
  const asks = fc.array(fc.record({ stepMs: fc.integer({ min: -70_000, max: 70_000 }), want: fc.nat({ max: 7 }) }), {
    maxLength: 40,
  });
  fc.assert(
    fc.property(asks, fc.integer({ min: 1, max: 20 }), (sequence, limit) => {
      let stored: BudgetWindow | undefined;
      let ms = 0;
      for (const { stepMs, want } of sequence) {
        ms += stepMs;
        const before = stored;
        const answer: { window: BudgetWindow; block: BudgetBlock } = take(before, ms, want, limit);
        const { window, block } = answer;
        expect(window.taken).toBeLessThanOrEqual(limit);
        expect(block.taken).toBeLessThanOrEqual(want);
        expect(block.left + window.taken).toBe(limit);
        expect(block.taken === want || block.left === 0).toBe(true);
        expect(block.endsInMs).toBeGreaterThan(0);
        expect(block.endsInMs).toBeLessThanOrEqual(WINDOW_MS);
        // A window that has not lasted its time is never begun anew.
        const isOpen = before && ms < before.openedAt.getTime() - noon.getTime() + WINDOW_MS;
        expect(window.taken - block.taken).toBe(isOpen ? before.taken : 0);
        stored = window;
      }
    }),
    { numRuns: 500 },
  );
});
