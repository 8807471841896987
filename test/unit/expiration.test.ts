import fc from 'fast-check';
import { expect, test } from 'vitest';

import { parseExpiration, parseOverlap } from '../../src/grpc/expiration.js';
import { isRefusal } from '../../src/keys/refusal.js';

const seconds = fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n });
const nanos = fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 });

test('whatever numbers arrive, an expiration is a valid time, a lifetime of 1 ms or more, or refused', () => {
  fc.assert(
    fc.property(fc.constantFrom('expireTime', 'ttl'), seconds, nanos, ($case, s, n) => {
      const parsed = parseExpiration({ $case, value: { seconds: s, nanos: n } });
      if (isRefusal(parsed)) {
        expect(parsed.refused).toBe('EXPIRATION_INVALID');
        return;
      }
      if (parsed.kind === 'at') expect(Number.isSafeInteger(parsed.time.getTime())).toBe(true);
      if (parsed.kind === 'after') {
        expect(Number.isSafeInteger(parsed.ttlMs)).toBe(true);
        expect(parsed.ttlMs).toBeGreaterThanOrEqual(1);
      }
    }),
    {
      numRuns: 1000,
      examples: [
        ['expireTime', 0n, 0],
        ['ttl', 1n, 0],
        ['ttl', 0n, 1_000_000],
      ],
    },
  );
});

test('times are rounded down to the millisecond', () => {
  const value = { seconds: 100n, nanos: 1_999_999 };
  expect(parseExpiration({ $case: 'expireTime', value })).toEqual({ kind: 'at', time: new Date(100_001) });
  expect(parseExpiration({ $case: 'ttl', value })).toEqual({ kind: 'after', ttlMs: 100_001 });
  expect(parseExpiration({ $case: 'expireTime', value: { seconds: -1n, nanos: 999_999_999 } })).toEqual({
    kind: 'at',
    time: new Date(-1),
  });
});

test('an expiration that is unset leaves it to the keyspace', () => {
  expect(parseExpiration(undefined)).toEqual({ kind: 'default' });
});

test('whatever numbers arrive, an overlap is 0 only where it says 0, else 1 ms or more, or refused', () => {
  fc.assert(
    fc.property(seconds, nanos, (s, n) => {
      const parsed = parseOverlap({ seconds: s, nanos: n });
      if (isRefusal(parsed)) expect(parsed.refused).toBe('OVERLAP_INVALID');
      else expect(Number.isSafeInteger(parsed) && (parsed ?? 0) > 0).toBe(s !== 0n || n !== 0);
    }),
    {
      numRuns: 1000,
      examples: [
        [0n, 0],
        [0n, 999_999],
        [1n, 0],
        [-1n, 999_999_999],
      ],
    },
  );
  expect(parseOverlap(undefined)).toBeUndefined();
  expect(parseOverlap({ seconds: 3600n, nanos: 1_999_999 })).toBe(3_600_001);
});
