import { expect, test } from 'vitest';

import { isOfReplica, waitBeforeRetry } from '../../src/client/retry.js';

const away = { code: 'UNAVAILABLE', reason: 'STORE_UNAVAILABLE', retryAfterMs: 1000 };
const waits = (fault: { code: string; retryAfterMs?: number; reason?: string }, tries: number, fit = false) =>
  [0, 0.5, 1].map((drawn) => waitBeforeRetry(fault, tries, fit, () => drawn));

test('only what is unavailable or too late is tried again', () => {
  const codes = ['UNKNOWN', 'INTERNAL', 'RESOURCE_EXHAUSTED', 'ABORTED', 'UNIMPLEMENTED', 'PERMISSION_DENIED'];
  for (const code of codes) expect(waits({ code }, 1)).toEqual([undefined, undefined, undefined]);
  for (const code of ['UNAVAILABLE', 'DEADLINE_EXCEEDED']) expect(waits({ code }, 1)).toEqual([0, 10, 20]);
});

test('pauses grow with each try up to a second, and chance spreads them', () => {
  expect(waits({ code: 'UNAVAILABLE' }, 3)).toEqual([0, 40, 80]);
  expect(waits({ code: 'UNAVAILABLE' }, 40)).toEqual([0, 500, 1000]);
});

test('a replica that asks to be left alone is not asked sooner, and another one is asked in its place', () => {
  expect(waits(away, 1)).toEqual([1000, 1010, 1020]);
  expect(waits(away, 1, true)).toEqual([0, 10, 20]);
});

test('a backlog of the audit is the same for every replica', () => {
  const backlog = { code: 'UNAVAILABLE', reason: 'AUDIT_BACKLOG', retryAfterMs: 10_000 };
  expect(isOfReplica(backlog)).toBe(false);
  expect(waits(backlog, 1, true)).toEqual([10_000, 10_010, 10_020]);
});
