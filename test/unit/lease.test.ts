import { expect, test } from 'vitest';

import type { Clock } from '../../src/keys/clock.js';
import { Lease } from '../../src/store/mongodb/leases/lease.js';

const MS = 1000;

/** A clock that is set by hand. */
function aClock(): Clock & { monotonic: number; wall: number; pass(ms: number): void } {
  return {
    monotonic: 50,
    wall: 1_000_000,
    now() {
      return new Date(this.wall);
    },
    monotonicMs() {
      return this.monotonic;
    },
    pass(ms) {
      this.monotonic += ms;
      this.wall += ms;
    },
  };
}

test('there is no lease before a number was seen', () => {
  const lease = new Lease(MS, aClock());
  lease.draw();
  expect(lease.holds()).toBe(false);
});

test('a lease counts from before the attempt, however late its number is seen', () => {
  const clock = aClock();
  const lease = new Lease(MS, clock);
  const number = lease.draw();
  clock.pass(900);
  lease.prove(number);
  expect(lease.holds()).toBe(true);
  clock.pass(99);
  expect(lease.holds()).toBe(true);
  clock.pass(1);
  expect(lease.holds()).toBe(false);
});

test('a number that is seen when its time is over gives no lease', () => {
  const clock = aClock();
  const lease = new Lease(MS, clock);
  const number = lease.draw();
  clock.pass(MS);
  lease.prove(number);
  expect(lease.holds()).toBe(false);
});

test('an earlier number that is seen later shortens nothing, and one that was never drawn proves nothing', () => {
  const clock = aClock();
  const lease = new Lease(MS, clock);
  const first = lease.draw();
  clock.pass(500);
  const second = lease.draw();
  lease.prove(second);
  lease.prove(first);
  clock.pass(MS - 1);
  expect(lease.holds()).toBe(true);
  lease.prove(second + 1);
  lease.prove(Number.NaN);
  clock.pass(1);
  expect(lease.holds()).toBe(false);
});

test('numbers only grow', () => {
  const clock = aClock();
  const lease = new Lease(MS, clock);
  const numbers = Array.from({ length: 20 }, () => {
    clock.pass(300);
    return lease.draw();
  });
  expect(numbers).toEqual(numbers.toSorted((a, b) => a - b));
  expect(new Set(numbers).size).toBe(numbers.length);
});

test('a lease is over when the machine has slept, though the monotonic clock stood still', () => {
  const clock = aClock();
  const lease = new Lease(MS, clock);
  lease.prove(lease.draw());
  clock.wall += MS;
  expect(lease.holds()).toBe(false);
});

test('a wall clock that is set back makes no lease longer', () => {
  const clock = aClock();
  const lease = new Lease(MS, clock);
  lease.prove(lease.draw());
  clock.wall -= 3_600_000;
  clock.monotonic += MS;
  expect(lease.holds()).toBe(false);
});

test('what is seen after the end proves nothing', () => {
  const lease = new Lease(MS, aClock());
  const number = lease.draw();
  lease.prove(number);
  lease.end();
  expect(lease.holds()).toBe(false);
  lease.prove(lease.draw());
  expect(lease.holds()).toBe(false);
});

test('what is left of a lease is told by the clock by which it ends first, and nothing where there is none', () => {
  const clock = aClock();
  const lease = new Lease(MS, clock);
  expect(lease.remainingMs).toBe(0);
  lease.prove(lease.draw());
  clock.pass(400);
  expect(lease.remainingMs).toBe(600);
  clock.wall += 100;
  expect(lease.remainingMs).toBe(500);
  clock.pass(10 * MS);
  expect(lease.remainingMs).toBe(0);
  lease.prove(lease.draw());
  lease.end();
  expect(lease.remainingMs).toBe(0);
});
