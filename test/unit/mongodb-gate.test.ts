import { expect, test } from 'vitest';

import { Deadline, systemClock } from '../../src/keys/clock.js';
import type { Ask } from '../../src/store/mongodb/connection.js';
import { Gate } from '../../src/store/mongodb/gate.js';
import { TimedOut } from '../../src/store/mongodb/trouble.js';

const within = (ms: number) => Deadline.after(ms, systemClock);
const ask: Ask = (call) => call({ maxTimeMS: 1000 });
/** Whoever asked has given up before the call has ended. */
const impatient: Ask = (call) => {
  void call({ maxTimeMS: 1000 });
  return Promise.reject(new TimedOut());
};

/** A call that ends when it is told to. */
function held() {
  let end = (): void => undefined;
  const ended = new Promise<void>((resolve) => (end = resolve));
  return { call: () => ended, end };
}

test('no more than its places are under way, and who comes first is let in first', async () => {
  const gate = new Gate(2);
  const calls = [held(), held(), held(), held()];
  const begun: number[] = [];
  const runs = calls.map(({ call }, at) =>
    gate.run(within(5000), (hold) => {
      begun.push(at);
      return hold(ask)(call);
    }),
  );
  await new Promise(setImmediate);
  expect(begun).toEqual([0, 1]);
  calls[1]?.end();
  await runs[1];
  await new Promise(setImmediate);
  expect(begun).toEqual([0, 1, 2]);
  for (const { end } of calls) end();
  await Promise.all(runs);
  expect(begun).toEqual([0, 1, 2, 3]);
});

test('a place is not free before the call has ended, though whoever waited for it has given up', async () => {
  const gate = new Gate(1);
  const { call, end } = held();
  await expect(gate.run(within(5000), (hold) => hold(impatient)(call))).rejects.toBeInstanceOf(TimedOut);
  const next = gate.run(within(5000), () => Promise.resolve('in'));
  await expect(Promise.race([next, new Promise((resolve) => setTimeout(resolve, 20, 'out'))])).resolves.toBe('out');
  end();
  await expect(next).resolves.toBe('in');
});

test('who waits leaves at the deadline, takes no place, and keeps nobody behind it out', async () => {
  const gate = new Gate(1);
  const { call, end } = held();
  const first = gate.run(within(5000), (hold) => hold(ask)(call));
  const late = gate.run(within(5), () => Promise.resolve('late'));
  const next = gate.run(within(5000), () => Promise.resolve('in'));
  await expect(late).rejects.toBeInstanceOf(TimedOut);
  end();
  await first;
  await expect(next).resolves.toBe('in');
  await expect(gate.run(within(5000), () => Promise.resolve('in'))).resolves.toBe('in');
});

test('work that fails leaves its place', async () => {
  const gate = new Gate(1);
  await expect(gate.run(within(5000), () => Promise.reject(new Error('broken')))).rejects.toThrow('broken');
  await expect(gate.run(within(5000), () => Promise.resolve('in'))).resolves.toBe('in');
});
