import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { parseEvent, toLostEvent } from '../../src/audit/read-event.js';
import { verifyChain } from '../../src/audit/verify-chain.js';
import type { CloudEvent } from '../../src/keys/chain.js';
import type { AuditEvent } from '../../src/keys/event.js';
import { newEventId } from '../../src/keys/ids.js';
import { isCurrent, type Key } from '../../src/keys/key.js';
import { type Keyspace, planOf } from '../../src/keys/keyspace.js';
import { keysNamed, type LostEvent, type Losses, reconcile } from '../../src/keys/reconcile.js';
import { isRefusal } from '../../src/keys/refusal.js';
import { toEntries } from '../support/audit.js';
import { acme, aKeyspace, noon } from '../support/domain.js';
import { Model } from '../support/model.js';
import { type Step, step, strictKeyspace, toRequest } from '../support/requests.js';

const later = new Date(noon.getTime() + 3_600_000);

describe('a store that was put back to an earlier state, once it is reconciled', () => {
  test('gives nothing that had been taken away, and nothing that it did not give before', () => {
    const met = new Set<string>();
    afterReconciling(({ original, earlier, store }) => {
      for (const [keyId, before] of earlier.keys) {
        const [then, now] = [keyOf(original, keyId), keyOf(store, keyId)];
        expect(rightsOf(now)).toEqual(both(rightsOf(before), rightsOf(then)));
        for (const taken of difference(rightsOf(before), rightsOf(now))) met.add(taken);
        if (then.standing.kind === 'revoked' && before.standing.kind !== 'revoked') {
          expect(now.standing).toMatchObject({ kind: 'revoked', reason: then.standing.reason });
        }
      }
      const { suspended } = store.organization;
      expect(suspended).toBe(earlier.organization.suspended || original.organization.suspended);
      if (suspended && !earlier.organization.suspended) met.add('suspended');
    });
    // A right that was never taken away would prove nothing.
    expect([...met].sort()).toEqual(['enabled', 'lasts', 'scope', 'suspended', 'unrevoked']);
  });

  test('has the plan that was given', () => {
    afterReconciling(({ original, store }) => {
      expect(planOf(strictKeyspace, store.organization)).toEqual(planOf(strictKeyspace, original.organization));
    });
  });

  test('has the whole chain, and goes on behind it', async () => {
    await fc.assert(
      fc.asyncProperty(histories, async (history) => {
        const { original, store } = restoreAndReconcile(history);
        expect(store.events.slice(0, original.events.length)).toMatchObject(
          original.events.map(({ hash }) => ({ hash })),
        );
        const { sequence, hash } = store.organization;
        const heads = new Map([['shop/acme', { sequence, hash }]]);
        const verdict = await verifyChain(from(store.events), { repeats: 'fault', heads });
        expect(verdict.faults).toEqual([]);
        expect(verdict.events).toBe(sequence);
        expect(store.organization.keyCount).toBe([...store.keys.values()].filter(isCurrent).length);
      }),
    );
  });

  test('is not changed by doing it again', () => {
    afterReconciling(({ original, store }) => {
      const { revision } = store.organization;
      expect(reconcileWith(store, [...original.events, ...store.events])).toMatchObject({ lost: [] });
      expect(store.organization.revision).toBe(revision);
    });
  });

  test('names each key that was made since as gone, and no other', () => {
    afterReconciling(({ original, earlier, losses }) => {
      const gone = [...original.keys.keys()].filter((keyId) => !earlier.keys.has(keyId));
      expect(losses.gone.map(({ keyId }) => keyId).sort()).toEqual(gone.sort());
    });
  });

  test('tells in its own events which event took the right away, as the service itself', () => {
    afterReconciling(({ original, store }) => {
      for (const { cloudEvent } of store.events.slice(original.events.length)) {
        const { data } = JSON.parse(cloudEvent) as CloudEvent;
        expect(data).toMatchObject({ caller: 'keyreeve reconcile', actor: { type: 'SYSTEM', id: 'keyreeve' } });
        const [, sequence] = /as event (\d+) \(evt_/.exec(data.reason_detail ?? '') ?? [];
        const by = original.events[Number(sequence) - 1];
        expect(data.reason_detail).toContain(by?.eventId);
        if (data.key) expect([by?.keyId, by?.previousKeyId]).toContain(data.key.key_id);
      }
    });
  });
});

test('events that follow another head than the store has change nothing', () => {
  for (const lostChanges of [1, 2, 3]) {
    const plans = ['large', 'small', 'large'].slice(0, lostChanges);
    const { original, earlier: store } = restore({ before: [create], after: plans.map(giving) });
    // The store went on by itself.
    take(store, { ...giving('large'), suspended: true });
    const { organization } = store;
    expect(reconcileWith(store, original.events)).toBeUndefined();
    expect(store.organization).toBe(organization);
  }
});

test('a key that was made and revoked since is told of with its revocation, so that nobody imports it again', () => {
  const unwanted = { ...create, name: 'b' };
  const revoke: Step = { do: 'revoke', atMs: 0, requestId: undefined, which: { by: 'key_id', nth: 0, name: '' } };
  const { original, earlier: store } = restore({
    before: [create],
    after: [unwanted, revoke, { ...create, name: 'c' }],
  });
  const gone = reconcileWith(store, original.events)?.gone;
  expect(gone).toMatchObject([
    { name: 'b', by: { sequence: 2 }, revocation: { by: { sequence: 3 } } },
    { name: 'c', by: { sequence: 4 } },
  ]);
  expect(gone?.[1]).not.toHaveProperty('revocation');
});

test('a plan that the keyspaces file has no more is told of and left out', () => {
  const { original, earlier: store } = restore({ before: [create], after: [giving('large')] });
  const losses = reconcileWith(store, original.events, aKeyspace());
  expect(losses?.leftOut).toMatchObject([{ what: 'plan', by: { sequence: 2 } }]);
  expect(store.organization).toMatchObject({ sequence: 2, settingsRevision: 0 });
});

const create: Step = { do: 'create', atMs: 0, requestId: undefined, ttlMs: undefined, name: 'a' };

function giving(plan: string): Extract<Step, { do: 'organization' }> {
  return { do: 'organization', atMs: 0, requestId: undefined, etag: 'none', suspended: undefined, plan };
}

interface History {
  readonly before: readonly Step[];
  readonly after: readonly Step[];
}

/**
 * Among steps of all kinds, scopes are given and taken, and keys are disabled and cut short: by itself that seldom happens
 * to one key before and after.
 */
const histories: fc.Arbitrary<History> = fc.record({
  before: fc.array(fc.oneof(step, settingScopes(['read', 'write'])), { minLength: 3, maxLength: 20 }),
  after: fc.array(
    fc.oneof(
      step,
      settingScopes(['read']),
      settingScopes(['write', 'more']),
      setting({ disabled: true }, { expireMs: 5000 }),
    ),
    { minLength: 1, maxLength: 20 },
  ),
});

function settingScopes(scopes: readonly string[]): fc.Arbitrary<Step> {
  return setting({ scopes });
}

/** One of them, of one of the first keys. */
function setting(...fields: Partial<Extract<Step, { do: 'update' }>>[]): fc.Arbitrary<Step> {
  const unset = { name: undefined, scopes: undefined, labels: undefined, expireMs: undefined, disabled: undefined };
  return fc.tuple(fc.nat({ max: 2 }), fc.constantFrom(...fields)).map(([nth, set]) => ({
    ...{ do: 'update', atMs: 0, requestId: undefined, etag: 'none', ...unset, ...set },
    which: { by: 'key_id', nth, name: '' },
  }));
}

interface Reconciled {
  /** With all that happened. */
  readonly original: Model;
  /** As of the backup. */
  readonly earlier: Model;
  /** The backup, reconciled. */
  readonly store: Model;
  readonly losses: Losses;
}

function afterReconciling(check: (reconciled: Reconciled) => void): void {
  fc.assert(
    fc.property(histories, (history) => check(restoreAndReconcile(history))),
    { numRuns: 300 },
  );
}

function restoreAndReconcile(history: History): Reconciled {
  const { original, earlier } = restore(history);
  const store = copy(earlier);
  const losses = reconcileWith(store, original.events);
  if (!losses) throw new Error('the events do not follow the store');
  return { original, earlier, store, losses };
}

function restore({ before, after }: History): { original: Model; earlier: Model } {
  const original = new Model();
  for (const one of before) take(original, one);
  const earlier = copy(original);
  for (const one of after) take(original, one);
  return { original, earlier };
}

function take(model: Model, one: Step): void {
  const { load, rule } = toRequest(one, model);
  model.change(load, rule);
}

function copy(model: Model): Model {
  const copied = new Model();
  copied.organization = model.organization;
  for (const [keyId, key] of model.keys) copied.keys.set(keyId, key);
  copied.events.push(...model.events);
  return copied;
}

function reconcileWith(
  store: Model,
  events: readonly AuditEvent[],
  keyspace: Keyspace = strictKeyspace,
): Losses | undefined {
  const lost = events.map(toLost);
  const draw = { now: later, eventIds: [...keysNamed(lost), ''].map(newEventId) };
  const load = { keyIds: keysNamed(lost) };
  const answer = store.change(load, (state) => reconcile(state, { organization: acme, lost, keyspace }, draw));
  if (isRefusal(answer)) throw new Error(answer.refused);
  return answer;
}

function toLost({ cloudEvent }: AuditEvent): LostEvent {
  const event = parseEvent(cloudEvent);
  const lost = event && toLostEvent(event, cloudEvent);
  if (!lost) throw new Error('the event is not known');
  return lost;
}

/** What a key lets its holder do. */
interface Rights {
  readonly unrevoked: boolean;
  readonly enabled: boolean;
  /** Until when, in milliseconds. */
  readonly lasts: number;
  readonly scopes: readonly string[];
}

function rightsOf({ standing, expireTime, scopes }: Key): Rights {
  const unrevoked = standing.kind !== 'revoked';
  if (!unrevoked) return { unrevoked, enabled: false, lasts: 0, scopes: [] };
  return { unrevoked, enabled: standing.kind === 'usable', lasts: expireTime?.getTime() ?? Infinity, scopes };
}

function both(a: Rights, b: Rights): Rights {
  return {
    unrevoked: a.unrevoked && b.unrevoked,
    enabled: a.enabled && b.enabled,
    lasts: Math.min(a.lasts, b.lasts),
    scopes: a.scopes.filter((scope) => b.scopes.includes(scope)),
  };
}

function difference(before: Rights, now: Rights): string[] {
  if (before.unrevoked && !now.unrevoked) return ['unrevoked'];
  return [
    ...(before.enabled && !now.enabled ? ['enabled'] : []),
    ...(before.lasts > now.lasts ? ['lasts'] : []),
    ...(before.scopes.length > now.scopes.length ? ['scope'] : []),
  ];
}

function keyOf(model: Model, keyId: string): Key {
  const key = model.keys.get(keyId);
  if (!key) throw new Error('the key is not there');
  return key;
}

async function* from(events: readonly AuditEvent[]) {
  yield* await Promise.resolve(toEntries(events));
}
