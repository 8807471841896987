/** Laws that hold under any sequence of requests. */
import fc from 'fast-check';
import { expect, test } from 'vitest';

import { canonicalJson, type CloudEvent, hashOf } from '../../src/keys/chain.js';
import { createKey } from '../../src/keys/create-key.js';
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
import { GENESIS_HASH } from '../../src/keys/organization.js';
import { isRefusal } from '../../src/keys/refusal.js';
import { revokeKey } from '../../src/keys/revoke-key.js';
import type { KeySelector } from '../../src/keys/select-key.js';
import {
  aKey,
  aMutation,
  askingToCreate,
  askingToRevoke,
  drawToCreate,
  drawToRevoke,
  limitedTo,
  noon,
} from '../support/domain.js';
import { Model } from '../support/model.js';

const KEY_LIMIT = 3;
const keyspace = limitedTo(KEY_LIMIT, { names: { required: true, unique: true, default: '' } });

type Step =
  | { do: 'create'; name: string; ttlMs?: number; requestId?: string; at: number }
  | { do: 'revoke'; nth: number; by: KeySelector['by']; name: string; at: number };

const names = fc.constantFrom('a', 'b', 'c', 'd', 'e', 'f');
// Time may stand still and run backwards, as wall clocks do.
const at = fc.integer({ min: -5000, max: 60_000 });
const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.oneof(
    fc.record(
      {
        do: fc.constant('create' as const),
        name: names,
        at,
        ttlMs: fc.integer({ min: 1, max: 30_000 }),
        requestId: fc.constantFrom('r1', 'r2'),
      },
      { requiredKeys: ['do', 'name', 'at'] },
    ),
    fc.record({
      do: fc.constant('revoke' as const),
      nth: fc.nat({ max: 9 }),
      by: fc.constantFrom('key_id' as const, 'name' as const),
      name: names,
      at,
    }),
  ),
  { minLength: 10, maxLength: 30 },
);

function take(model: Model, step: Step): void {
  const now = new Date(noon.getTime() + step.at);
  if (step.do === 'create') {
    const { name, ttlMs, requestId } = step;
    const request = requestId === undefined ? undefined : { method: 'CreateKey', requestId, hash: name };
    const ask = askingToCreate({
      name,
      mutation: aMutation(request && { request }),
      ...(ttlMs !== undefined && { expiration: { kind: 'after', ttlMs } }),
    });
    const draw = drawToCreate(keyspace, { now });
    model.change({ name, ...(request && { request: { caller: 'console', ...request } }) }, (state) =>
      createKey(state, ask, keyspace, draw),
    );
    return;
  }
  const keyId = [...model.keys.keys()][step.nth] ?? 'key_none';
  const selector: KeySelector = step.by === 'name' ? { by: 'name', name: step.name } : { by: 'key_id', keyId };
  const draw = drawToRevoke({ now });
  model.change({ selector }, (state) => revokeKey(state, askingToRevoke({ selector }), draw));
}

/** Calls `check` with the model after each step. */
function afterEachStep(check: (model: Model, before: ReadonlyMap<string, Key>) => void, numRuns = 200): void {
  fc.assert(
    fc.property(steps, (sequence) => {
      const model = new Model();
      for (const step of sequence) {
        const before = new Map(model.keys);
        take(model, step);
        check(model, before);
      }
    }),
    { numRuns },
  );
}

test('a revoked key never becomes usable again, and its revocation never changes', () => {
  let revokedSeen = 0;
  afterEachStep((model, before) => {
    for (const [keyId, key] of before) {
      if (key.standing.kind !== 'revoked') continue;
      revokedSeen += 1;
      const after = model.keys.get(keyId);
      expect(after?.standing).toEqual(key.standing);
      for (const time of [new Date(0), noon, new Date(8e15)]) {
        expect(after && judgeKey(after, { suspended: false }, { requiredScopes: [] }, time)).toBe('REVOKED');
      }
    }
  });
  expect(revokedSeen).toBeGreaterThan(100);
});

test('the count is that of the current keys and never passes the limit', () => {
  let full = 0;
  afterEachStep((model) => {
    const current = [...model.keys.values()].filter(isCurrent);
    expect(model.organization.keyCount).toBe(current.length);
    expect(current.length).toBeLessThanOrEqual(KEY_LIMIT);
    expect(new Set(current.map(({ name }) => name)).size).toBe(current.length);
    if (current.length === KEY_LIMIT) full += 1;
  });
  expect(full).toBeGreaterThan(50);
});

test('every change makes its event, in a chain without gap whose times never run backwards', () => {
  afterEachStep((model, before) => {
    const changed = [...model.keys.values()].filter((key) => before.get(key.keyId)?.revision !== key.revision);
    const sequencesBefore = model.events.length - changed.length;
    expect(model.events.slice(sequencesBefore).map(({ keyId }) => keyId)).toEqual(changed.map(({ keyId }) => keyId));
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
  });
});

test('a decision is VALID exactly for a usable key in its time, organization and scopes', () => {
  const standings = fc.constantFrom<Key['standing']>(
    { kind: 'usable' },
    { kind: 'disabled' },
    { kind: 'revoked', time: noon, by: { type: 'USER', id: 'ada' }, reason: 'OTHER', detail: '' },
  );
  const scopes = fc.uniqueArray(fc.constantFrom('read', 'write', 'admin'));
  fc.assert(
    fc.property(
      standings,
      fc.option(at, { nil: undefined }),
      at,
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
    const key = aKey({ ...organization, name, scopes, labels: Object.fromEntries(labels) });
    const facts = { name, type: 'T'.repeat(64), scopes, labels: key.labels, expireTime: noon };
    const model = new Model(organization);
    model.change({}, () => ({
      answer: 'done',
      widens: false,
      put: [],
      events: [
        {
          eventId: 'evt_01h455vb4pex5vsknk084sn02q',
          type: 'key.updated',
          time: noon,
          mutation: aMutation({
            organization,
            caller: 'c'.repeat(128),
            actor: { type: 'USER', id },
            request: { method: 'UpdateKey', requestId: 'r'.repeat(128), hash: '' },
          }),
          key,
          before: facts,
          after: facts,
          reason: 'OWNER_DEPARTED',
          reasonDetail: detail,
        },
      ],
    }));
    expect(Buffer.byteLength(model.events[0]?.cloudEvent ?? '')).toBeLessThanOrEqual(32 * 1024);
  }
});
