import { expect, test } from 'vitest';

import { type Clock, Deadline, systemClock } from '../../src/keys/clock.js';
import type { Digest } from '../../src/keys/digest.js';
import { createLog } from '../../src/log.js';
import { StoreFault } from '../../src/store/faults.js';
import { DigestMoves } from '../../src/verify/digest-moves.js';

const bare: Digest = { algorithm: 'sha256', pepperVersion: 0, bytes: new Uint8Array(32) };
const peppered: Digest = { algorithm: 'hmac-sha256', pepperVersion: 1, bytes: new Uint8Array(32).fill(1) };

function start() {
  const begun: { keyId: string; done: () => void; fail: (error: unknown) => void }[] = [];
  const logged: string[] = [];
  const log = createLog('info', { write: (line) => logged.push(line) });
  const store = {
    moveDigest: (keyId: string) =>
      new Promise<void>((resolve, reject) => begun.push({ keyId, done: resolve, fail: reject })),
  };
  let laterMs = 0;
  const clock: Clock = { now: () => new Date(), monotonicMs: () => performance.now() + laterMs };
  const moves = new DigestMoves({ store, clock, log });
  const begin = (keyId: string) => moves.begin(keyId, bare, peppered);
  return { begun, logged, moves, begin, later: (ms: number) => (laterMs += ms) };
}

const settled = () => new Promise((resolve) => setImmediate(resolve));

test('a key is moved once at a time, and few keys at once', async () => {
  const { begun, begin } = start();
  for (const keyId of ['a', 'a', 'b', 'c', 'd', 'e', 'f']) begin(keyId);
  expect(begun.map(({ keyId }) => keyId)).toEqual(['a', 'b', 'c', 'd']);
  begun[0]?.done();
  await settled();
  begin('e');
  begin('f');
  expect(begun.map(({ keyId }) => keyId)).toEqual(['a', 'b', 'c', 'd', 'e']);
});

test('a move that failed is told of, though not each, and is tried again after a rest', async () => {
  const { begun, logged, begin, later } = start();
  for (let n = 0; n < 5; n += 1) {
    begin('a');
    begun[n]?.fail(new StoreFault('unavailable', 'away'));
    await settled();
    begin('a');
    begin('b');
    expect(begun).toHaveLength(n + 1);
    later(5000);
  }
  expect(logged).toHaveLength(1);
});

test('the end waits for the moves under way, no longer than it may, and begins no more', async () => {
  const { begun, moves, begin } = start();
  begin('a');
  const ended = moves.end(Deadline.after(30_000, systemClock));
  begin('b');
  expect(begun).toHaveLength(1);
  begun[0]?.done();
  await ended;

  const hanging = start();
  hanging.begin('a');
  await hanging.moves.end(Deadline.after(10, systemClock));
});
