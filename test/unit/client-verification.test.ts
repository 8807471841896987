import fc from 'fast-check';
import { expect, test } from 'vitest';

import { toVerification } from '../../src/client/verification.js';
import { VerifyKeyResponse } from '../../src/gen/keyreeve/v1/key_service.js';
import { Decision } from '../../src/gen/keyreeve/v1/verification.js';

const KEY = {
  keyId: 'key_1',
  scopes: ['a'],
  labels: new Map([['team', 'a']]),
  expireTime: { seconds: 2n, nanos: 5e8 },
};

/** As it arrives: encoded by the service, decoded by the client. */
function verificationOf(fields: { decision: number; key?: typeof KEY; cacheTtl?: { seconds: bigint; nanos: number } }) {
  const sent = VerifyKeyResponse.encode(VerifyKeyResponse.fromPartial(fields)).finish();
  return toVerification({ ok: true, response: VerifyKeyResponse.decode(sent) });
}

test('VALID lets in, with the key and for how long the answer may be kept', () => {
  expect(verificationOf({ decision: Decision.VALID, key: KEY, cacheTtl: { seconds: 5n, nanos: 0 } })).toMatchObject({
    allowed: true,
    key: { keyId: 'key_1', scopes: ['a'], labels: { team: 'a' }, expireTime: new Date(2500) },
    cacheTtlMs: 5000,
  });
});

test('no decision but VALID lets in, whatever number it has', () => {
  fc.assert(
    fc.property(fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }), (decision) => {
      fc.pre(decision !== VALID);
      expect(verificationOf({ decision, key: KEY }).allowed).toBe(false);
    }),
  );
});

test('a denial has the name of its decision, and one that is not known has none', () => {
  expect(verificationOf({ decision: Decision.REVOKED, key: KEY })).toMatchObject({ reason: 'REVOKED', key: KEY_ID });
  for (const decision of [0, 11, 4711, -1]) expect(verificationOf({ decision }).allowed).toBe(false);
  expect(verificationOf({ decision: 4711 })).toEqual({ allowed: false, reason: 'UNRECOGNIZED' });
  expect(verificationOf({ decision: 0 })).toEqual({ allowed: false, reason: 'UNRECOGNIZED' });
});

test('VALID without a key lets nobody in', () => {
  expect(verificationOf({ decision: Decision.VALID })).toEqual({ allowed: false, reason: 'UNRECOGNIZED' });
});

test('a refusal is no decision, and lets nobody in', () => {
  const refusal = {
    ok: false,
    reason: 'KEYSPACE_NOT_FOUND',
    code: 'NOT_FOUND',
    message: '',
    metadata: {},
    violations: [],
  } as const;
  expect(toVerification(refusal)).toEqual({ allowed: false, reason: 'KEYSPACE_NOT_FOUND', refusal });
});

const VALID: number = Decision.VALID;
const KEY_ID = expect.objectContaining({ keyId: 'key_1' }) as unknown;
