/** Of each kind of violation a history that has it, and one of which nothing is wrong. */
import { readFile } from 'node:fs/promises';
import { expect, test } from 'vitest';

import type { Entry } from '../../src/audit/verify-chain.js';
import { canonicalJson, type CloudEvent, hashOf } from '../../src/keys/chain.js';
import type { Operation, UpdateKey } from '../support/history.js';
import { check, type Evidence, type StoredKey, type ViolationKind, VIOLATIONS } from './checker.js';

const ORGANIZATION = 'hygiara/acme';
/** An end of a key, by the wall clock and by that of the history. */
const EXPIRE_TIME = new Date('2026-01-02T00:00:00.000Z');
const EXPIRY_MS = 1000;

/** Two keys are made, the first is verified, revoked and verified again, the second is rotated. */
interface World {
  history: Operation[];
  keys: StoredKey[];
  decisions: Map<number, string>;
  events: CloudEvent[];
  /** What becomes of the events' texts on their way. */
  published: (texts: string[]) => string[];
  keyLimit: number;
}

function soundWorld(): World {
  return {
    history: [
      create(1, 'r1', 'one', { keyId: key(1), credential: 0, replayed: false }),
      create(2, 'r2', 'two', { keyId: key(2), credential: 1, replayed: false }),
      create(3, 'r2', 'two', { keyId: key(2), replayed: true }),
      verify(4, 1, 0, 'VALID'),
      { ...timed(5), op: 'revoke', organization: ORGANIZATION, request: 'r3', keyId: key(1), outcome: complete() },
      verify(6, 1, 0, 'REVOKED'),
      {
        ...timed(7),
        op: 'rotate',
        organization: ORGANIZATION,
        request: 'r4',
        keyId: key(2),
        keepsOld: false,
        outcome: { ...complete(), keyId: key(3), credential: 2, replayed: false },
      },
      { ...verify(8, 3, 2, 'VALID'), outcome: rated('VALID', 1) },
      { ...verify(9, 3, 2, 'RATE_LIMITED'), outcome: rated('RATE_LIMITED', 0) },
      { ...create(10, 'r2', 'other'), outcome: { kind: 'refused', reason: 'REQUEST_ID_REUSED' } },
      { ...create(11, 'r5', 'three'), outcome: { kind: 'unknown', reason: 'UNAVAILABLE' } },
    ],
    keys: [
      stored(1, 'one', { state: 'REVOKED' }),
      stored(2, 'two', { state: 'REVOKED', supersededBy: key(3) }),
      stored(3, 'two', { rotatedFrom: key(2) }),
    ],
    decisions: new Map([
      [0, 'REVOKED'],
      [1, 'REVOKED'],
      [2, 'RATE_LIMITED'],
    ]),
    events: [
      event('key.created', 1, { request_id: 'r1' }),
      event('key.created', 2, { request_id: 'r2' }),
      event('key.revoked', 1, { request_id: 'r3' }),
      event('key.rotated', 3, {
        request_id: 'r4',
        previous_key: { ...keyJson(2), before: { state: 'ACTIVE' }, after: { state: 'REVOKED' } },
      }),
    ],
    // The relay repeats what it is unsure of.
    published: (texts) => [...texts.slice(0, 2), ...texts],
    keyLimit: 2,
  };
}

test('nothing is named a violation where everything happened as it was answered', async () => {
  const { violations, figures } = await check(toEvidence(soundWorld()));
  expect(violations).toEqual([]);
  expect(figures).toEqual({
    acknowledged: { create: 3, verify: 4, revoke: 1, rotate: 1 },
    refused: 1,
    unknown: 1,
    lost: 0,
    repeated: 2,
    outOfOrder: 0,
    events: 4,
  });
});

test('what a client was not told of counts as possible, be it done or not', async () => {
  const world = soundWorld();
  world.history.push(revokeUnknown(12, 3), verify(13, 3, 2, 'VALID'), verify(14, 3, 2, 'REVOKED'));
  expect((await check(toEvidence(world))).violations).toEqual([]);
  world.decisions.set(2, 'REVOKED');
  world.keys[2] = stored(3, 'two', { rotatedFrom: key(2), state: 'REVOKED' });
  world.events.push(event('key.revoked', 3));
  expect((await check(toEvidence(world))).violations).toEqual([]);
});

test('a key that a rotation keeps goes on until its successor is rotated', async () => {
  const world = soundWorld();
  world.keyLimit = 9;
  world.history.push(rotate(12, 3, 4, true), verify(13, 3, 2, 'VALID'));
  world.keys[2] = stored(3, 'two', { rotatedFrom: key(2), supersededBy: key(4) });
  world.keys.push(stored(4, 'two', { rotatedFrom: key(3) }));
  world.events.push(rotated(4, 3, 'ACTIVE'));
  world.decisions.set(2, 'VALID').set(12, 'VALID');
  expect((await check(toEvidence(world))).violations).toEqual([]);

  world.history.push(rotate(15, 4, 5, true), verify(16, 3, 2, 'REVOKED'));
  world.keys[2] = stored(3, 'two', { rotatedFrom: key(2), supersededBy: key(4), state: 'REVOKED' });
  world.keys[3] = stored(4, 'two', { rotatedFrom: key(3), supersededBy: key(5) });
  world.keys.push(stored(5, 'two', { rotatedFrom: key(4) }));
  world.events.push(rotated(5, 4, 'ACTIVE'), event('key.revoked', 3));
  world.decisions.set(2, 'REVOKED').set(15, 'VALID');
  expect((await check(toEvidence(world))).violations).toEqual([]);
  world.history.push(verify(17, 3, 2, 'VALID'));
  expect((await check(toEvidence(world))).violations.map(({ kind }) => kind)).toEqual(['valid-after-revoke']);
});

test('what was given back may be denied for as long as a replica may not know of it, and no longer', async () => {
  const world = soundWorld();
  world.history.push(switchKey(12, 3, true), switchKey(13, 3, false), verify(20, 3, 2, 'DISABLED'));
  const within = async (givenBackWithinMs: number) =>
    (await check({ ...toEvidence(world), givenBackWithinMs })).violations.map(({ kind }) => kind);
  expect(await within(8)).toEqual([]);
  expect(await within(5)).toEqual(['wrong-denial']);
});

test('what may be off may be denied and may be VALID, until one of them is certain', async () => {
  const world = soundWorld();
  world.history.push(
    { ...switchKey(12, 3, true), outcome: unknown('UNAVAILABLE') },
    verify(13, 3, 2, 'VALID'),
    verify(14, 3, 2, 'DISABLED'),
    { ...switchKey(15, 3, true), request: 'switch-12' },
    verify(16, 3, 2, 'DISABLED'),
    // While it is asked for, either answer is right.
    { ...verify(17.1, 3, 2, 'DISABLED'), endMs: 17.2 },
    { ...verify(17.3, 3, 2, 'VALID'), endMs: 17.4 },
    switchKey(17, 3, false),
    verify(18, 3, 2, 'VALID'),
    switchOrganization(19, true),
    verify(20, 3, 2, 'ORGANIZATION_SUSPENDED'),
    { ...create(21, 'r21', 'n'), outcome: { kind: 'refused', reason: 'ORGANIZATION_SUSPENDED' } },
    switchOrganization(22, false),
    verify(23, 3, 2, 'VALID'),
  );
  expect((await check(toEvidence(world))).violations).toEqual([]);
});

test('a key that is to end may be VALID until then, must be EXPIRED after, and a late request for it may be refused', async () => {
  const world = soundWorld();
  const afterMs = EXPIRY_MS + 200;
  world.history.push(
    { ...endEarly(12, 3), outcome: unknown('UNAVAILABLE') },
    endEarly(13, 3),
    verify(14, 3, 2, 'VALID'),
    verify(EXPIRY_MS, 3, 2, 'VALID'),
    verify(EXPIRY_MS + 1, 3, 2, 'EXPIRED'),
    verify(afterMs, 3, 2, 'EXPIRED'),
    { ...endEarly(afterMs, 1), outcome: { kind: 'refused', reason: 'EXPIRATION_INVALID' } },
  );
  const expired = { state: 'EXPIRED', expireTimeMs: EXPIRE_TIME.getTime() };
  world.keys[2] = { ...stored(3, 'two', { rotatedFrom: key(2) }), ...expired };
  world.events.push(
    event('key.updated', 3, { request_id: 'early-12', after: { expire_time: EXPIRE_TIME.toISOString() } }),
  );
  world.decisions.set(2, 'EXPIRED');
  expect((await check(toEvidence(world))).violations).toEqual([]);
});

const cases: { kind: ViolationKind; what: string; break: (world: World) => void }[] = [
  {
    kind: 'lost-key',
    what: 'an acknowledged key is not stored',
    break: (world) => void world.keys.pop(),
  },
  {
    kind: 'not-valid',
    what: 'a credential that nobody ended does not verify at the end',
    break: (world) => void world.decisions.set(2, 'NOT_FOUND'),
  },
  {
    kind: 'valid-after-revoke',
    what: 'a verification that began after the revocation was answered is VALID',
    break: (world) => void world.history.push(verify(12, 1, 0, 'VALID')),
  },
  {
    kind: 'valid-while-off',
    what: 'a verification that began after the disabling was answered is VALID',
    break: (world) => void world.history.push(switchKey(12, 3, true), verify(13, 3, 2, 'VALID')),
  },
  {
    kind: 'valid-while-off',
    what: 'a key of a suspended organization is VALID',
    break: (world) => void world.history.push(switchOrganization(12, true), verify(13, 3, 2, 'VALID')),
  },
  {
    kind: 'valid-while-off',
    what: 'a key that was disabled verifies at the end',
    break(world) {
      world.history.push(switchKey(12, 3, true));
      world.decisions.set(2, 'VALID');
    },
  },
  {
    kind: 'not-valid',
    what: 'a key that was enabled again is disabled at the end',
    break(world) {
      world.history.push(switchKey(12, 3, true), switchKey(13, 3, false));
      world.decisions.set(2, 'DISABLED');
    },
  },
  {
    kind: 'valid-after-expiry',
    what: 'a verification that began after the end that was asked for is VALID',
    break: (world) => void world.history.push(endEarly(12, 3), verify(EXPIRY_MS + 200, 3, 2, 'VALID')),
  },
  {
    kind: 'valid-after-expiry',
    what: 'a key that has ended verifies at the end',
    break(world) {
      world.history.push(endEarly(12, 3));
      world.keys[2] = { ...stored(3, 'two', { rotatedFrom: key(2) }), expireTimeMs: EXPIRE_TIME.getTime() };
      world.decisions.set(2, 'VALID');
    },
  },
  {
    kind: 'expiry-lost',
    what: 'a key whose earlier end was acknowledged never ends',
    break: (world) => void world.history.push(endEarly(12, 3)),
  },
  {
    kind: 'event-missing',
    what: 'a key has an earlier end of which no event tells',
    break: (world) =>
      (world.keys[2] = { ...stored(3, 'two', { rotatedFrom: key(2) }), expireTimeMs: EXPIRE_TIME.getTime() }),
  },
  {
    kind: 'wrong-denial',
    what: 'a key was denied as expired long before its end',
    break: (world) => void world.history.push(endEarly(12, 3), verify(13, 3, 2, 'EXPIRED')),
  },
  {
    kind: 'wrong-refusal',
    what: 'an end in the future was refused as one in the past',
    break: (world) =>
      void world.history.push({
        ...endEarly(12, 3),
        outcome: { kind: 'refused', reason: 'EXPIRATION_INVALID' },
      }),
  },
  {
    kind: 'revocation-lost',
    what: 'a key that was revoked is active at the end',
    break: (world) => (world.keys[0] = stored(1, 'one')),
  },
  {
    kind: 'revocation-lost',
    what: 'a credential that was rotated away verifies at the end',
    break: (world) => void world.decisions.set(1, 'VALID'),
  },
  {
    kind: 'limit-exceeded',
    what: 'there are more keys than the limit at the end',
    break(world) {
      world.keys.push(stored(4, 'four'), stored(5, 'five'));
      world.events.push(event('key.created', 4), event('key.created', 5));
    },
  },
  {
    kind: 'limit-exceeded',
    what: 'there were too many for a while, as the events have it',
    break: (world) => (world.keyLimit = 1),
  },
  {
    kind: 'limit-exceeded',
    what: 'clients held more keys at once than the limit, whatever the events say',
    break(world) {
      world.keyLimit = 1;
      world.events = [];
      world.keys = [];
    },
  },
  {
    kind: 'second-key',
    what: 'a repeat was answered with another key',
    break: (world) => void world.history.push(create(12, 'r1', 'one', { keyId: key(3), replayed: true })),
  },
  {
    kind: 'second-key',
    what: 'an import was answered with another key when it was repeated',
    break: (world) => void world.history.push(importKey(12, 'r12', key(3)), importKey(13, 'r13', key(2))),
  },
  {
    kind: 'lost-key',
    what: 'an imported key is not stored',
    break: (world) => void world.history.push(importKey(12, 'r12', key(9))),
  },
  {
    kind: 'wrong-denial',
    what: 'a key was denied as revoked that a rotation keeps',
    break: (world) => void world.history.push(rotate(12, 3, 4, true), verify(13, 3, 2, 'REVOKED')),
  },
  {
    kind: 'second-key',
    what: 'two keys are stored that one request asked for',
    break(world) {
      world.keyLimit = 9;
      world.keys.push(stored(4, 'one'));
      world.events.push(event('key.created', 4));
    },
  },
  {
    kind: 'second-key',
    what: 'two events tell of one request, though one of the keys was revoked since',
    break(world) {
      world.keys.push(stored(4, 'other', { state: 'REVOKED' }));
      world.events.push(event('key.created', 4, { request_id: 'r1' }), event('key.revoked', 4));
    },
  },
  {
    kind: 'request-not-compared',
    what: 'another request under the same id was answered',
    break: (world) => void world.history.push(create(12, 'r1', 'other', { keyId: key(1), replayed: true })),
  },
  {
    kind: 'wrong-denial',
    what: 'a key was not found while the database was away',
    break: (world) => void world.history.push(verify(12, 3, 2, 'NOT_FOUND')),
  },
  {
    kind: 'wrong-denial',
    what: 'a key was denied as revoked before anybody had asked for it',
    break: (world) => void world.history.splice(3, 1, verify(4, 1, 0, 'REVOKED')),
  },
  {
    kind: 'wrong-denial',
    what: 'a key was denied as disabled before anybody had asked for it',
    break: (world) => void world.history.push(verify(12, 3, 2, 'DISABLED'), switchKey(13, 3, true)),
  },
  {
    kind: 'wrong-denial',
    what: 'a key was denied as disabled that had been enabled again',
    break: (world) =>
      void world.history.push(switchKey(12, 3, true), switchKey(13, 3, false), verify(14, 3, 2, 'DISABLED')),
  },
  {
    kind: 'wrong-refusal',
    what: 'a revocation was refused because the key could not be read',
    break: (world) =>
      void world.history.push({ ...revokeUnknown(12, 3), outcome: { kind: 'refused', reason: 'KEY_NOT_FOUND' } }),
  },
  {
    kind: 'wrong-refusal',
    what: 'a key was refused for a limit that was not reached',
    break(world) {
      world.keyLimit = 9;
      world.history.push({ ...create(12, 'r9', 'nine'), outcome: { kind: 'refused', reason: 'KEY_LIMIT_REACHED' } });
    },
  },
  {
    kind: 'internal-error',
    what: 'a caller was told of a defect',
    break: (world) => void world.history.push({ ...create(12, 'r9', 'n'), outcome: unknown('INTERNAL') }),
  },
  {
    kind: 'rate-exceeded',
    what: 'a window admitted more than its limit',
    break: (world) => void world.history.push({ ...verify(12, 3, 2, 'VALID'), outcome: rated('VALID', 0) }),
  },
  {
    kind: 'event-missing',
    what: 'the last event was never published',
    break: (world) => (world.published = (texts) => texts.slice(0, -1)),
  },
  {
    kind: 'event-missing',
    what: 'an event in the middle was never published',
    break: (world) => (world.published = (texts) => texts.toSpliced(1, 1)),
  },
  {
    kind: 'event-missing',
    what: 'a change made no event',
    break: (world) => void world.events.splice(2, 1),
  },
  {
    kind: 'event-missing',
    what: 'a key is disabled of which no event says so',
    break: (world) => (world.keys[2] = stored(3, 'two', { rotatedFrom: key(2), state: 'DISABLED' })),
  },
  {
    kind: 'event-twice',
    what: 'an update made two events',
    break: (world) =>
      void world.events.push(
        event('key.updated', 3, { request_id: 'r8' }),
        event('key.updated', 3, { request_id: 'r8' }),
      ),
  },
  {
    kind: 'event-twice',
    what: 'a change made two events',
    break: (world) => void world.events.push(event('key.revoked', 1)),
  },
  {
    kind: 'event-without-change',
    what: 'an event tells of a key that is not stored',
    break: (world) => void world.events.push(event('key.created', 9)),
  },
  {
    kind: 'event-without-change',
    what: 'an event tells of a revocation that is not stored',
    break: (world) => void world.events.push(event('key.revoked', 3)),
  },
  {
    kind: 'event-disorder',
    what: 'an event was published before the one that precedes it',
    break: (world) => (world.published = ([a = '', b = '', c = '', d = '']) => [a, c, b, d]),
  },
  {
    kind: 'chain-broken',
    what: 'an event was altered',
    break: (world) => (world.published = (texts) => texts.map((text) => text.replace('"r2"', '"r7"'))),
  },
  {
    kind: 'chain-broken',
    what: 'a repeat is not what came first',
    break(world) {
      const other = seal([event('key.created', 1, { request_id: 'r8' })]);
      world.published = (texts) => [...texts, ...other.texts];
    },
  },
];

test.for(cases)('$kind is named where $what', async ({ kind, break: breakWorld }) => {
  const world = soundWorld();
  breakWorld(world);
  const { violations } = await check(toEvidence(world));
  expect(violations.map((violation) => violation.kind)).toContain(kind);
});

test('docs/reliability.md says what each kind of violation means', async () => {
  const page = await readFile(new URL('../../docs/reliability.md', import.meta.url), 'utf8');
  const told = [...page.matchAll(/^\| `([a-z-]+)` +\| (.+?) +\|$/gm)].map(([, kind = '', meaning = '']) => [
    kind,
    meaning,
  ]);
  expect(Object.fromEntries(told)).toEqual(VIOLATIONS);
});

test('each kind of violation is tried', () => {
  expect([...new Set(cases.map(({ kind }) => kind))].sort()).toEqual(Object.keys(VIOLATIONS).sort());
});

function toEvidence({ history, keys, decisions, events, published, keyLimit }: World): Evidence {
  const { texts, head } = seal(events);
  return {
    history,
    stored: { keys, heads: new Map([[ORGANIZATION, head]]), readTimeMs: EXPIRE_TIME.getTime() + 1000, decisions },
    published: published(texts).map((text, at): Entry => ({ text, position: `line ${at + 1}` })),
    keyLimits: new Map([[ORGANIZATION, keyLimit]]),
  };
}

/** Puts events into a chain. */
function seal(events: readonly CloudEvent[]): { texts: string[]; head: { sequence: number; hash: string } } {
  let head = { sequence: 0, hash: '0'.repeat(64) };
  const texts = events.map((draft) => {
    const data = { ...draft.data, sequence: head.sequence + 1, previous_hash: head.hash };
    const sealed = { ...draft, data };
    head = { sequence: data.sequence, hash: hashOf(sealed) };
    return canonicalJson({ ...sealed, data: { ...data, hash: head.hash } });
  });
  return { texts, head };
}

function event(type: string, keyNumber: number, more: Partial<CloudEvent['data']> = {}): CloudEvent {
  return {
    specversion: '1.0',
    id: `evt_${keyNumber}`,
    source: 'urn:keyreeve:test',
    type: `keyreeve.${type}`,
    subject: `${ORGANIZATION}/${key(keyNumber)}`,
    time: '2026-01-01T00:00:00.000Z',
    datacontenttype: 'application/json',
    data: {
      keyspace: 'hygiara',
      organization_id: 'acme',
      sequence: 0,
      previous_hash: '',
      caller: 'local',
      actor: { type: 'USER', id: 'ada' },
      key: keyJson(keyNumber),
      ...more,
    },
  };
}

function keyJson(number: number) {
  return { key_id: key(number), name: 'n', type: '', display: '' };
}

function key(number: number): string {
  return `key_${number}`;
}

function timed(n: number) {
  return { n, startMs: n, endMs: n + 0.5, replica: 0 };
}

function create(n: number, request: string, name: string, answer?: object): Operation {
  const outcome = answer ? { kind: 'acknowledged', ...answer } : unknown('UNAVAILABLE');
  return { ...timed(n), op: 'create', organization: ORGANIZATION, request, name, outcome } as Operation;
}

function revokeUnknown(n: number, keyNumber: number): Operation {
  const outcome = unknown('UNAVAILABLE');
  return { ...timed(n), op: 'revoke', organization: ORGANIZATION, request: `x${n}`, keyId: key(keyNumber), outcome };
}

function importKey(n: number, request: string, keyId: string): Operation {
  const asked = { op: 'import', organization: ORGANIZATION, request, name: 'imported', credential: 9 } as const;
  return { ...timed(n), ...asked, outcome: { kind: 'acknowledged', keyId, credential: 9, replayed: false } };
}

/** Its new credential has the number of the operation. */
function rotate(n: number, from: number, to: number, keepsOld: boolean): Operation {
  const asked = {
    op: 'rotate',
    organization: ORGANIZATION,
    request: `rotate-${n}`,
    keyId: key(from),
    keepsOld,
  } as const;
  return { ...timed(n), ...asked, outcome: { ...complete(), keyId: key(to), credential: n, replayed: false } };
}

function rotated(to: number, from: number, state: string): CloudEvent {
  const previous = { ...keyJson(from), before: { state: 'ACTIVE' }, after: { state } };
  return event('key.rotated', to, { previous_key: previous });
}

function switchKey(n: number, keyNumber: number, off: boolean): UpdateKey {
  const asked = {
    op: 'update-key',
    organization: ORGANIZATION,
    request: `switch-${n}`,
    keyId: key(keyNumber),
    off,
  } as const;
  return { ...timed(n), ...asked, outcome: complete() };
}

function endEarly(n: number, keyNumber: number): Operation {
  const asked = { op: 'end-early', organization: ORGANIZATION, request: 'early-12', keyId: key(keyNumber) } as const;
  const end = { expireTimeMs: EXPIRE_TIME.getTime(), expiryMs: EXPIRY_MS };
  return { ...timed(n), ...asked, ...end, outcome: complete() };
}

function switchOrganization(n: number, off: boolean): Operation {
  const asked = { op: 'update-organization', organization: ORGANIZATION, request: `switch-${n}`, off } as const;
  return { ...timed(n), ...asked, outcome: complete() };
}

function verify(n: number, keyNumber: number, credential: number, decision: string) {
  const outcome = { kind: 'acknowledged', decision } as const;
  return { ...timed(n), op: 'verify', keyId: key(keyNumber), credential, outcome } as const;
}

function rated(decision: string, remaining: number) {
  return { kind: 'acknowledged', decision, rate: { limit: 1, remaining, resetMs: 60_000 } } as const;
}

function complete() {
  return { kind: 'acknowledged', complete: true } as const;
}

function unknown(reason: string) {
  return { kind: 'unknown', reason } as const;
}

function stored(number: number, name: string, more: Partial<StoredKey> = {}): StoredKey {
  const record = { organization: ORGANIZATION, keyId: key(number), name, state: 'ACTIVE' };
  return { ...record, supersededBy: '', rotatedFrom: '', ...more };
}
