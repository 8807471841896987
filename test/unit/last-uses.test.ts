import { afterEach, beforeEach, expect, test, vi } from 'vitest';

import { Deadline, systemClock } from '../../src/keys/clock.js';
import { createLog } from '../../src/log.js';
import { StoreFault } from '../../src/store/faults.js';
import { LastUses, USES_WRITTEN_EVERY_MS } from '../../src/verify/last-uses.js';

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

const at = (second: number) => new Date(Date.UTC(2026, 0, 2, 12, 0, second));

function start({ keysMax }: { keysMax?: number } = {}) {
  const written: Record<string, Date>[] = [];
  const logged: string[] = [];
  const store = {
    isAway: false,
    takesMs: 0,
    async recordUses(uses: ReadonlyMap<string, Date>) {
      if (this.isAway) throw new StoreFault('unavailable', 'away');
      if (this.takesMs > 0) await new Promise((done) => setTimeout(done, this.takesMs));
      written.push(Object.fromEntries(uses));
    },
  };
  const log = createLog('info', { write: (line) => logged.push(line) });
  const uses = new LastUses({ store, clock: systemClock, log, ...(keysMax !== undefined && { keysMax }) });
  const end = () => uses.end(Deadline.after(1000, systemClock));
  return { uses, store, written, logged, end };
}

test('uses are written together every few seconds, each key with its latest, and none where there was none', async () => {
  const { uses, written, end } = start();
  uses.note('a', at(1));
  uses.note('b', at(2));
  uses.note('a', at(3));
  uses.note('a', at(2));
  expect(written).toEqual([]);
  await vi.advanceTimersByTimeAsync(USES_WRITTEN_EVERY_MS);
  expect(written).toEqual([{ a: at(3), b: at(2) }]);
  await vi.advanceTimersByTimeAsync(3 * USES_WRITTEN_EVERY_MS);
  expect(written).toHaveLength(1);
  await end();
});

test('what could not be written is kept, and written with what came later', async () => {
  const { uses, store, written, logged, end } = start();
  store.isAway = true;
  uses.note('a', at(1));
  uses.note('b', at(1));
  await vi.advanceTimersByTimeAsync(3 * USES_WRITTEN_EVERY_MS);
  uses.note('a', at(9));
  store.isAway = false;
  await vi.advanceTimersByTimeAsync(USES_WRITTEN_EVERY_MS);
  expect(written).toEqual([{ b: at(1), a: at(9) }]);
  expect(logged).toHaveLength(2); // once that it cannot, once that it can again
  await end();
});

test('a use during the writing is written after it', async () => {
  const { uses, store, written, end } = start();
  let answer: () => void = () => undefined;
  const record = store.recordUses.bind(store);
  store.recordUses = (batch) => new Promise((resolve) => (answer = () => resolve(record(batch))));
  uses.note('a', at(1));
  await vi.advanceTimersByTimeAsync(USES_WRITTEN_EVERY_MS);
  uses.note('a', at(2));
  store.recordUses = record;
  answer();
  await vi.advanceTimersByTimeAsync(USES_WRITTEN_EVERY_MS);
  expect(written).toEqual([{ a: at(1) }, { a: at(2) }]);
  await end();
});

test('keys that are used all the time do not keep others from being written, however slow the store is', async () => {
  const { uses, store, written, end } = start();
  // Two batches of a thousand take as long as one writing may.
  store.takesMs = 2000;
  const useAll = (second: number) => {
    for (let n = 0; n < 2500; n += 1) uses.note(`busy ${n}`, at(second));
  };
  useAll(1);
  uses.note('once', at(1));
  for (let second = 2; second <= 20; second += 1) {
    await vi.advanceTimersByTimeAsync(1000);
    useAll(second);
  }
  expect(written.some((batch) => 'once' in batch)).toBe(true);
  await vi.advanceTimersByTimeAsync(USES_WRITTEN_EVERY_MS);
  void end();
});

test('each batch is of neighbours by id, and what a writing leaves over comes first in the next one', async () => {
  const { uses, store, written, end } = start();
  // One batch of a thousand takes longer than a writing may.
  store.takesMs = 4100;
  const name = (n: number) => `key ${String(n).padStart(4, '0')}`;
  const names = (from: number, to: number) => Array.from({ length: to - from }, (_, n) => name(from + n));
  for (let n = 0; n < 2000; n += 1) uses.note(name((n * 7) % 2000), at(1));
  await vi.advanceTimersByTimeAsync(USES_WRITTEN_EVERY_MS + 4200);
  uses.note(name(0), at(2));
  store.takesMs = 0;
  await vi.advanceTimersByTimeAsync(USES_WRITTEN_EVERY_MS);
  expect(written.map((batch) => Object.keys(batch))).toEqual([names(0, 1000), names(1000, 2000), names(0, 1)]);
  await end();
});

test('what was noted before a writing is written in it, however much is used meanwhile', async () => {
  const { uses, store, written, end } = start();
  const record = store.recordUses.bind(store);
  store.recordUses = (batch) => {
    const nth = written.length;
    for (let n = 0; n < 500; n += 1) uses.note(`a later one ${nth}.${n}`, at(2));
    return record(batch);
  };
  for (let n = 0; n < 12_000; n += 1) uses.note(`before ${n}`, at(1));
  await vi.advanceTimersByTimeAsync(USES_WRITTEN_EVERY_MS);
  const names = written.flatMap((batch) => Object.keys(batch));
  expect(names).toHaveLength(12_000);
  expect(names.filter((name) => name.startsWith('before'))).toHaveLength(12_000);
  store.recordUses = record;
  await end();
});

test('at the end all is written', async () => {
  const { uses, written, end } = start();
  for (let n = 0; n < 2500; n += 1) uses.note(`key ${n}`, at(1));
  await end();
  expect(written.flatMap((batch) => Object.keys(batch))).toHaveLength(2500);
});

test('the end comes in time though the store hangs', async () => {
  const { uses, store, logged, end } = start();
  store.recordUses = () => new Promise(() => undefined);
  uses.note('a', at(1));
  const ended = end();
  await vi.advanceTimersByTimeAsync(1001);
  await ended;
  expect(logged.join()).toContain('stopped before all were written');
});

test('while the store is away, no more than so many are kept, and one warning says that some are lost', async () => {
  const { uses, store, written, logged, end } = start({ keysMax: 3 });
  store.isAway = true;
  for (const [second, key] of ['a', 'b', 'a', 'c', 'd', 'b', 'e'].entries()) uses.note(key, at(second));
  await vi.advanceTimersByTimeAsync(USES_WRITTEN_EVERY_MS);
  store.isAway = false;
  await end();
  expect(written).toEqual([{ c: at(3), d: at(4), e: at(6) }]);
  expect(logged.filter((line) => line.includes('those that wait longest are lost'))).toHaveLength(1);
});
