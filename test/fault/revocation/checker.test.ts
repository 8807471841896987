/** The checker alone: it names what a history shows, and nothing that it does not. */
import { expect, test } from 'vitest';

import { checkRevocations } from './checker.js';
import type { Disturbance, GivingBack, Taking, Verification } from './history.js';

const KEY = 'key_1';

function taking(more: Partial<Taking> = {}): Taking {
  return {
    target: { way: 'revoke', keys: [KEY] },
    replica: 0,
    startMs: 100,
    endMs: 200,
    patienceMs: 10_000,
    outcome: { kind: 'answered', complete: true },
    ...more,
  };
}

function verification(startMs: number, decision: string, more: Partial<Verification> = {}): Verification {
  return {
    keyId: KEY,
    replica: 1,
    startMs,
    endMs: startMs + 10,
    wide: true,
    warm: true,
    via: 'single',
    outcome: { kind: 'decided', decision },
    ...more,
  };
}

function disturbance(more: Partial<Disturbance> = {}): Disturbance {
  return { name: 'cut off', startMs: 0, endMs: 1000, keeps: 'database', replicas: [1], ...more };
}

function kindsOf(of: {
  takings?: Taking[];
  givings?: GivingBack[];
  verifications?: Verification[];
  disturbances?: Disturbance[];
}): string[] {
  const history = { takings: [], givings: [], verifications: [], disturbances: [], leaseMs: 1000, ...of };
  return checkRevocations(history).violations.map(({ kind }) => kind);
}

test('a yes that began after the answer is a violation, one that began before it is none', () => {
  const takings = [taking()];
  expect(kindsOf({ takings, verifications: [verification(199, 'VALID')] })).toEqual([]);
  expect(kindsOf({ takings, verifications: [verification(200, 'VALID')] })).toEqual(['valid-after-enforced']);
});

test('an answer that is not complete promises a time, and nothing before it', () => {
  const takings = [taking({ outcome: { kind: 'answered', complete: false, byMs: 3000 }, patienceMs: 50 })];
  expect(kindsOf({ takings, verifications: [verification(2900, 'VALID')] })).toEqual([]);
  expect(kindsOf({ takings, verifications: [verification(3100, 'VALID')] })).toEqual(['valid-after-promised']);
});

test('a time told by a wall clock that is wrong is not held against anybody', () => {
  const takings = [taking({ outcome: { kind: 'answered', complete: false, byMs: 3000 }, patienceMs: 50 })];
  const disturbances = [disturbance({ replicas: [0], keeps: 'nothing', wallClocks: true })];
  expect(kindsOf({ takings, disturbances, verifications: [verification(3100, 'VALID')] })).toEqual([]);
});

test('a call whose outcome is unknown justifies a denial and a yes', () => {
  const takings = [taking({ outcome: { kind: 'unknown', reason: 'UNAVAILABLE' } })];
  const disturbances = [disturbance()];
  const verifications = [verification(300, 'VALID'), verification(400, 'REVOKED')];
  expect(kindsOf({ takings, disturbances, verifications })).toEqual([]);
});

test('a denial that nobody asked for is a violation, also one for another reason', () => {
  expect(kindsOf({ verifications: [verification(300, 'REVOKED')] })).toEqual(['wrong-denial']);
  expect(kindsOf({ takings: [taking()], verifications: [verification(300, 'NOT_FOUND')] })).toEqual(['wrong-denial']);
});

test('what was given back may be valid from when that was asked, and what is taken again may not', () => {
  const target = { way: 'suspend' as const, keys: [KEY] };
  const takings = [taking({ target }), taking({ target, startMs: 500, endMs: 600 })];
  const givings = [{ target, replica: 0, startMs: 300, endMs: 350 }];
  const at = (startMs: number) => kindsOf({ takings, givings, verifications: [verification(startMs, 'VALID')] });
  expect(at(250)).toEqual(['valid-after-enforced']);
  // It ends after giving it back was asked for.
  expect(at(295)).toEqual([]);
  expect(at(400)).toEqual([]);
  expect(at(700)).toEqual(['valid-after-enforced']);
});

test('what was given back may be denied for a lease by a replica that does not know of it, and no longer', () => {
  const target = { way: 'suspend' as const, keys: [KEY] };
  const givings = [{ target, replica: 0, startMs: 300, endMs: 350 }];
  const at = (startMs: number, takings = [taking({ target })]) =>
    kindsOf({ takings, givings, verifications: [verification(startMs, 'ORGANIZATION_SUSPENDED')] });
  expect(at(1500)).toEqual([]);
  expect(at(1600)).toEqual(['wrong-denial']);
  expect(at(1600, [taking({ target }), taking({ target, startMs: 500, endMs: 600 })])).toEqual([]);
});

test('fewer scopes concern only those who ask for what is gone', () => {
  const takings = [taking({ target: { way: 'narrow', keys: [KEY] } })];
  expect(kindsOf({ takings, verifications: [verification(300, 'VALID', { wide: false })] })).toEqual([]);
  expect(kindsOf({ takings, verifications: [verification(300, 'VALID')] })).toEqual(['valid-after-enforced']);
  const denied = verification(300, 'INSUFFICIENT_SCOPE', { wide: false });
  expect(kindsOf({ takings, verifications: [denied] })).toEqual(['wrong-denial']);
});

test('an earlier end counts from when it comes', () => {
  const takings = [taking({ target: { way: 'shorten', keys: [KEY], expiryMs: 1000 } })];
  expect(kindsOf({ takings, verifications: [verification(900, 'VALID')] })).toEqual([]);
  expect(kindsOf({ takings, verifications: [verification(1100, 'VALID')] })).toEqual(['valid-after-enforced']);
});

test('no decision is excused on a replica that is kept from giving one, for a while after, and nowhere else', () => {
  const outcome = { kind: 'failed' as const, reason: 'STORE_UNAVAILABLE' };
  const failed = (startMs: number, more: Partial<Verification> = {}) => [
    verification(startMs, '', { outcome, ...more }),
  ];
  const disturbances = [disturbance()];
  expect(kindsOf({ disturbances, verifications: failed(500) })).toEqual([]);
  expect(kindsOf({ disturbances, verifications: failed(500, { replica: 2 }) })).toEqual(['not-told']);
  expect(kindsOf({ disturbances, verifications: failed(60_000) })).toEqual(['not-told']);
  const outlasted = [disturbance({ keeps: 'cold' })];
  expect(kindsOf({ disturbances: outlasted, verifications: failed(500) })).toEqual(['not-told']);
  expect(kindsOf({ disturbances: outlasted, verifications: failed(500, { warm: false }) })).toEqual([]);
});

test('whoever has time enough is told that it is enforced, as long as nothing is wrong', () => {
  const late = taking({ outcome: { kind: 'answered', complete: false, byMs: 3000 } });
  expect(kindsOf({ takings: [late] })).toEqual(['not-enforced']);
  expect(kindsOf({ takings: [late], disturbances: [disturbance()] })).toEqual([]);
  expect(kindsOf({ takings: [{ ...late, patienceMs: 100 }] })).toEqual([]);
});
