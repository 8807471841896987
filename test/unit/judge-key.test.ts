import fc from 'fast-check';
import { expect, test } from 'vitest';

import { type Decision, judgeKey } from '../../src/keys/judge-key.js';
import type { Key } from '../../src/keys/key.js';
import { aKey, noon } from '../support/domain.js';

interface Reason {
  readonly decision: Decision;
  readonly key?: Partial<Key>;
  readonly suspended?: true;
  readonly organizationId?: string;
  readonly requiredScopes?: readonly string[];
}

/** By precedence, each with what brings it about. */
const reasons: readonly Reason[] = [
  { decision: 'WRONG_ORGANIZATION', organizationId: 'umbrella' },
  {
    decision: 'REVOKED',
    key: { standing: { kind: 'revoked', time: noon, by: { type: 'USER', id: 'ada' }, reason: 'OTHER', detail: '' } },
  },
  { decision: 'DISABLED', key: { standing: { kind: 'disabled' } } },
  { decision: 'EXPIRED', key: { expireTime: noon } },
  { decision: 'ORGANIZATION_SUSPENDED', suspended: true },
  { decision: 'INSUFFICIENT_SCOPE', requiredScopes: ['write'] },
];

function judge(holding: readonly Reason[]): Decision {
  // A key has one standing: of those that hold, the one that comes first.
  const key = aKey(
    [...holding]
      .reverse()
      .reduce<Partial<Key>>((fields, reason) => ({ ...fields, ...reason.key }), { scopes: ['read'] }),
  );
  const organizationId = holding.find((reason) => reason.organizationId)?.organizationId ?? 'acme';
  const requiredScopes = holding.flatMap((reason) => reason.requiredScopes ?? ['read']);
  const suspended = holding.some((reason) => reason.suspended === true);
  return judgeKey(key, { suspended }, { organizationId, requiredScopes }, noon);
}

test('of several reasons to deny the first by precedence is answered, and without any the key is VALID', () => {
  fc.assert(
    fc.property(fc.subarray([...reasons]), (holding) => {
      expect(judge(holding)).toBe(holding[0]?.decision ?? 'VALID');
    }),
    { examples: [[[]], [[...reasons]]] },
  );
  expect(reasons.map((reason) => judge([reason]))).toEqual(reasons.map(({ decision }) => decision));
});

test('a superseded key is judged like any other until it ends', () => {
  const key = aKey({ supersededBy: 'key_new', expireTime: new Date(noon.getTime() + 1) });
  const judgeAt = (ms: number) =>
    judgeKey(key, { suspended: false }, { requiredScopes: [] }, new Date(noon.getTime() + ms));
  expect([judgeAt(0), judgeAt(1)]).toEqual(['VALID', 'EXPIRED']);
});

test('scopes are compared whole, without wildcards', () => {
  const judgeWith = (scopes: string[], requiredScopes: string[]) =>
    judgeKey(aKey({ scopes }), { suspended: false }, { requiredScopes }, noon);
  expect(judgeWith(['keys:*'], ['keys:read'])).toBe('INSUFFICIENT_SCOPE');
  expect(judgeWith(['keys:read'], ['keys:*'])).toBe('INSUFFICIENT_SCOPE');
  expect(judgeWith(['a', 'b'], ['b', 'a', 'a'])).toBe('VALID');
  expect(judgeWith([], [])).toBe('VALID');
});
