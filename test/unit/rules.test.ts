/** Laws that hold under any sequence of requests. */
import fc from 'fast-check';
import { expect, test } from 'vitest';

import { canonicalJson, type CloudEvent, hashOf } from '../../src/keys/chain.js';
import { EVENT_TYPES } from '../../src/keys/event.js';
import {
  ACTOR_ID_LENGTH_MAX,
  LABELS_BYTES_MAX,
  NAME_LENGTH_MAX,
  parseLabels,
  parseName,
  parseScopes,
  parseText,
  REASON_DETAIL_LENGTH_MAX,
  SCOPES_BYTES_MAX,
} from '../../src/keys/fields.js';
import { judgeKey } from '../../src/keys/judge-key.js';
import { isCurrent, type Key, KEY_STATES, stateOf } from '../../src/keys/key.js';
import { planOf } from '../../src/keys/keyspace.js';
import { GENESIS_HASH, type Organization } from '../../src/keys/organization.js';
import { isRefusal } from '../../src/keys/refusal.js';
import { TRACEPARENT } from '../support/audit.js';
import { aKey, aMutation, noon } from '../support/domain.js';
import { Model } from '../support/model.js';
import { type Step, step, strictKeyspace, toRequest } from '../support/requests.js';

const sequences = fc.array(step, { minLength: 10, maxLength: 40 });

/** A step, and what was there before it. */
interface Taken {
  readonly step: Step;
  readonly keys: ReadonlyMap<string, Key>;
  readonly organization: Organization;
  readonly events: number;
  /** Absent: it was refused. */
  readonly widens?: boolean;
}

/** For what comes about so seldom, or in so few sequences, that 300 are not sure to hold enough of it. */
const MANY = 900;

/** Calls `check` with the model after each step. */
function afterEachStep(check: (model: Model, before: Taken) => void, numRuns = 300): void {
  fc.assert(
    fc.property(sequences, (steps) => {
      const model = new Model();
      for (const one of steps) {
        const before = { keys: new Map(model.keys), organization: model.organization, events: model.events.length };
        check(model, { step: one, ...before, ...take(model, one) });
      }
    }),
    { numRuns },
  );
}

function take(model: Model, one: Step): { widens?: boolean } {
  const { load, rule } = toRequest(one, model);
  const widens: boolean[] = [];
  model.change(load, (state) => {
    const change = rule(state);
    if (!isRefusal(change)) widens.push(change.widens);
    return change;
  });
  return { ...(widens[0] !== undefined && { widens: widens[0] }) };
}

/** How often what a law speaks of came about: one that never does proves nothing. */
class Tally {
  readonly #counts = new Map<string, number>();

  add(what: string): void {
    this.#counts.set(what, this.of(what) + 1);
  }

  of(what: string): number {
    return this.#counts.get(what) ?? 0;
  }
}

const isRevoked = (key: Key): boolean => key.standing.kind === 'revoked';

test('a revoked key never becomes usable again, and its record never changes', () => {
  const tally = new Tally();
  afterEachStep((model, before) => {
    for (const [keyId, key] of before.keys) {
      if (!isRevoked(key)) continue;
      tally.add('revoked');
      const after = model.keys.get(keyId);
      expect(after).toEqual(key);
      for (const time of [new Date(0), noon, new Date(8e15)]) {
        expect(after && judgeKey(after, { suspended: false }, { requiredScopes: [] }, time)).toBe('REVOKED');
      }
    }
  });
  expect(tally.of('revoked')).toBeGreaterThan(100);
});

test('the count is that of the current keys, and none is added beyond the limit or under suspension', () => {
  const tally = new Tally();
  afterEachStep((model, before) => {
    const { keyCount, suspended } = model.organization;
    expect(keyCount).toBe([...model.keys.values()].filter(isCurrent).length);
    const limit = planOf(strictKeyspace, model.organization).keyLimit ?? 0;
    if (keyCount > before.organization.keyCount) {
      expect(keyCount).toBeLessThanOrEqual(limit);
      expect(suspended).toBe(false);
    }
    if (keyCount === limit) tally.add('full');
    if (keyCount > limit) tally.add('beyond a plan that became smaller');
  });
  expect(tally.of('full')).toBeGreaterThan(100);
  expect(tally.of('beyond a plan that became smaller')).toBeGreaterThan(5);
});

test('no two current keys have the same name where names are unique, and a plan that changes touches no key', () => {
  afterEachStep((model, before) => {
    const current = [...model.keys.values()].filter(isCurrent);
    expect(new Set(current.map(({ name }) => name)).size).toBe(current.length);
    if (before.step.do === 'organization') expect(model.keys).toEqual(before.keys);
  });
});

test('of a lineage one key at most is current and one at most superseded and unrevoked, and each follows another', () => {
  const tally = new Tally();
  afterEachStep((model) => {
    const all = [...model.keys.values()];
    for (const lineageId of new Set(all.map((key) => key.lineageId))) {
      const keys = all.filter((key) => key.lineageId === lineageId);
      expect(keys.filter(isCurrent).length).toBeLessThanOrEqual(1);
      const superseded = keys.filter((key) => key.supersededBy !== undefined && !isRevoked(key));
      expect(superseded.length).toBeLessThanOrEqual(1);
      if (superseded.length === 1) tally.add('overlap');
      expect(keys[0]).toMatchObject({ keyId: lineageId });
      expect(keys[0]?.rotatedFrom).toBeUndefined();
      for (const key of keys.slice(1)) {
        expect(model.keys.get(key.rotatedFrom ?? '')).toMatchObject({ supersededBy: key.keyId, lineageId });
      }
      expect(keys.slice(0, -1).every(({ supersededBy }) => supersededBy !== undefined)).toBe(true);
      expect(keys.at(-1)?.supersededBy).toBeUndefined();
      if (keys.length > 2) tally.add('three of a lineage');
    }
  }, MANY);
  expect(tally.of('overlap')).toBeGreaterThan(100);
  expect(tally.of('three of a lineage')).toBeGreaterThan(20);
});

test('a superseded key ends no later than before, and has no other of its facts changed', () => {
  afterEachStep((model, before) => {
    for (const [keyId, was] of before.keys) {
      if (was.supersededBy === undefined) continue;
      const now = model.keys.get(keyId);
      const { standing: _, expireTime: end, revision: __, ...rest } = now ?? was;
      const { standing: wasStanding, expireTime: wasEnd, revision: ___, ...before } = was;
      expect(rest).toEqual(before);
      if (wasEnd) expect(end && end <= wasEnd).toBe(true);
      if (wasStanding.kind !== 'usable') expect(now?.standing.kind).not.toBe('usable');
    }
  });
});

test('every change makes its one event and every event tells of a change, also of the settings', () => {
  const tally = new Tally();
  afterEachStep((model, before) => {
    const changed = [...model.keys.values()].filter((key) => before.keys.get(key.keyId)?.revision !== key.revision);
    const events = model.events.slice(before.events);
    const told = events.flatMap(({ keyId, previousKeyId }) => [keyId, ...(previousKeyId ? [previousKeyId] : [])]);
    const resettled = model.organization.settingsRevision - before.organization.settingsRevision;
    expect(told.sort()).toEqual([...changed.map(({ keyId }) => keyId), ...(resettled ? [''] : [])].sort());
    for (const { type } of events) tally.add(type);
    for (const { keyId, sequence, type } of events) {
      const making = type === 'key.created' || type === 'key.imported' || type === 'key.rotated';
      if (making) expect(model.keys.get(keyId)?.sequence).toBe(sequence);
    }
  });
  for (const type of EVENT_TYPES) expect(tally.of(type)).toBeGreaterThan(50);
});

test('events are a chain without gap whose times never run backwards', () => {
  fc.assert(
    fc.property(sequences, (steps) => {
      const model = new Model();
      for (const one of steps) take(model, one);
      let previous = { hash: GENESIS_HASH, time: new Date(0) };
      model.events.forEach((event, index) => {
        const envelope = JSON.parse(event.cloudEvent) as CloudEvent;
        expect(event.sequence).toBe(index + 1);
        expect(envelope.data.previous_hash).toBe(previous.hash);
        expect(hashOf(envelope)).toBe(event.hash);
        expect(canonicalJson(envelope)).toBe(event.cloudEvent);
        expect(event.time >= previous.time).toBe(true);
        previous = event;
      });
      expect(model.organization).toMatchObject({ sequence: model.events.length, hash: previous.hash });
    }),
    { numRuns: 200 },
  );
});

test('the same request again changes nothing', () => {
  const tally = new Tally();
  afterEachStep((model, { step: one, widens }) => {
    if (one.requestId === undefined) return;
    const before = [new Map(model.keys), model.organization, model.events.length];
    take(model, one);
    tally.add(widens === undefined ? 'refused' : one.do);
    expect([model.keys, model.organization, model.events.length]).toEqual(before);
  });
  for (const what of ['refused', 'create', 'revoke', 'rotate', 'update', 'organization']) {
    expect(tally.of(what)).toBeGreaterThan(20);
  }
});

test('no change that is not marked as widening lets a key do what none of its lineage could', () => {
  const tally = new Tally();
  afterEachStep((model, before) => {
    const { step: one, widens } = before;
    if (widens === undefined) return;
    tally.add(`${one.do} ${widens ? 'widens' : 'does not'}`);
    if (widens) return;
    const now = noon.getTime() + one.atMs;
    for (const time of [now, now + 15_000, now + 80_000].map((ms) => new Date(ms))) {
      for (const key of model.keys.values()) {
        if (!allows(key, model.organization, time)) continue;
        // A rotation that is not marked hands on what the old key could, until then at the latest.
        const was = before.keys.get(key.keyId) ?? before.keys.get(key.rotatedFrom ?? '');
        expect(was && (allows(was, before.organization, time) || one.do === 'rotate')).toBe(true);
        expect(was?.scopes).toEqual(expect.arrayContaining([...key.scopes]));
      }
    }
  }, MANY);
  for (const what of ['create', 'rotate', 'update', 'import', 'organization']) {
    expect(tally.of(`${what} widens`)).toBeGreaterThan(10);
  }
  for (const what of ['revoke', 'rotate', 'update', 'organization']) {
    expect(tally.of(`${what} does not`)).toBeGreaterThan(10);
  }
});

function allows(key: Key, organization: Organization, time: Date): boolean {
  return judgeKey(key, organization, { requiredScopes: [] }, time) === 'VALID';
}

test('a decision is VALID exactly for a usable key in its time, organization and scopes', () => {
  const standings = fc.constantFrom<Key['standing']>(
    { kind: 'usable' },
    { kind: 'disabled' },
    { kind: 'revoked', time: noon, by: { type: 'USER', id: 'ada' }, reason: 'OTHER', detail: '' },
  );
  const scopes = fc.uniqueArray(fc.constantFrom('read', 'write', 'admin'));
  const instants = fc.integer({ min: -5000, max: 60_000 });
  fc.assert(
    fc.property(
      standings,
      fc.option(instants, { nil: undefined }),
      instants,
      scopes,
      scopes,
      fc.constantFrom('acme', 'umbrella', undefined),
      (standing, expires, instant, held, required, organizationId) => {
        const now = new Date(noon.getTime() + instant);
        const expireTime = expires === undefined ? undefined : new Date(noon.getTime() + expires);
        const key = aKey({ standing, scopes: held, ...(expireTime && { expireTime }) });
        const decision = judgeKey(
          key,
          { suspended: false },
          { requiredScopes: required, ...(organizationId && { organizationId }) },
          now,
        );
        const valid =
          standing.kind === 'usable' &&
          (!expireTime || now < expireTime) &&
          required.every((scope) => held.includes(scope)) &&
          organizationId !== 'umbrella';
        expect(decision === 'VALID').toBe(valid);
        if (organizationId === 'umbrella') expect(decision).toBe('WRONG_ORGANIZATION');
        expect(KEY_STATES).toContain(stateOf(key, now));
      },
    ),
  );
});

test('no event exceeds 32 KiB, with every field at its longest and every character at its widest', () => {
  for (const widest of ['"', '\\', '😀', 'ß']) {
    const name = parseName(widest.repeat(NAME_LENGTH_MAX));
    const id = parseText(widest.repeat(ACTOR_ID_LENGTH_MAX), {
      field: 'id',
      lengthMax: ACTOR_ID_LENGTH_MAX,
      refused: 'ACTOR_REQUIRED',
    });
    const detail = parseText(widest.repeat(REASON_DETAIL_LENGTH_MAX), {
      field: 'd',
      lengthMax: REASON_DETAIL_LENGTH_MAX,
      refused: 'TEXT_INVALID',
    });
    const width = Buffer.byteLength(widest);
    const labels = parseLabels(new Map([['k', widest.repeat(Math.floor((LABELS_BYTES_MAX - 1) / width))]]));
    const scopes = parseScopes(Array.from({ length: 50 }, (_, n) => String(n).padStart(SCOPES_BYTES_MAX / 50, 's')));
    if (isRefusal(name) || isRefusal(id) || isRefusal(detail) || isRefusal(labels) || isRefusal(scopes)) {
      throw new Error('a field at its longest is refused');
    }
    const organization = { keyspace: 'k'.repeat(63), organizationId: 'o'.repeat(128) };
    // An imported key may show 64 characters of its own.
    const display = widest.repeat(64);
    const key = aKey({ ...organization, name, display, scopes, labels: Object.fromEntries(labels) });
    const facts = {
      name,
      type: 'T'.repeat(64),
      state: 'DISABLED',
      scopes,
      labels: key.labels,
      expireTime: noon,
    } as const;
    const end = { state: 'DISABLED', expireTime: noon } as const;
    const draft = {
      eventId: 'evt_01h455vb4pex5vsknk084sn02q',
      time: noon,
      mutation: aMutation({
        organization,
        caller: 'c'.repeat(128),
        actor: { type: 'USER', id },
        traceparent: TRACEPARENT,
        request: { method: 'UpdateKey', requestId: 'r'.repeat(128), hash: '' },
      }),
      key,
      reason: 'OWNER_DEPARTED',
      reasonDetail: detail,
    } as const;
    const model = new Model(organization);
    model.change({}, () => ({
      answer: 'done',
      widens: false,
      put: [],
      events: [
        { ...draft, type: 'key.updated', before: facts, after: facts },
        { ...draft, type: 'key.rotated', after: facts, previous: { key, before: end, after: end } },
      ],
    }));
    expect(model.events).toHaveLength(2);
    for (const { cloudEvent } of model.events) expect(Buffer.byteLength(cloudEvent)).toBeLessThanOrEqual(32 * 1024);
  }
});
