import { describe, expect, test } from 'vitest';

import { createKey } from '../../src/keys/create-key.js';
import type { Key } from '../../src/keys/key.js';
import { isRefusal, type Refusal } from '../../src/keys/refusal.js';
import { type RevokedKey, revokeKey, type RevokeKey } from '../../src/keys/revoke-key.js';
import {
  aKey,
  aKeyspace,
  aMutation,
  askingToCreate,
  askingToRevoke,
  drawToCreate,
  drawToRevoke,
  noon,
} from '../support/domain.js';
import { Model } from '../support/model.js';

const later = new Date(noon.getTime() + 60_000);

function created(model: Model, name: string): Key {
  const keyspace = aKeyspace();
  const draw = drawToCreate(keyspace);
  const answer = model.change({}, (state) => createKey(state, askingToCreate({ name }), keyspace, draw));
  if (isRefusal(answer)) throw new Error(answer.refused);
  return answer.key;
}

function revoke(model: Model, ask: Pick<RevokeKey, 'selector'> & Partial<RevokeKey>, now = noon): RevokedKey | Refusal {
  const full = askingToRevoke(ask);
  const draw = drawToRevoke({ now });
  const { request, caller } = full.mutation;
  return model.change(
    {
      selector: full.selector,
      withLineage: full.selector.by === 'name',
      ...(request && { request: { caller, ...request } }),
    },
    (state) => revokeKey(state, full, draw),
  );
}

test('a revocation says when, by whom and why, frees the key’s place and makes one event', () => {
  const model = new Model();
  const { keyId } = created(model, 'ci');
  const answer = revoke(model, { selector: { by: 'key_id', keyId }, reason: 'COMPROMISED', reasonDetail: 'in a log' });
  expect(answer).toMatchObject({
    key: {
      keyId,
      revision: 2,
      standing: { kind: 'revoked', time: noon, by: { id: 'ada' }, reason: 'COMPROMISED', detail: 'in a log' },
    },
  });
  expect(model.organization.keyCount).toBe(0);
  expect(model.events.map(({ type }) => type)).toEqual(['key.created', 'key.revoked']);
  expect(JSON.parse(model.events[1]?.cloudEvent ?? '')).toMatchObject({
    data: {
      reason: 'COMPROMISED',
      reason_detail: 'in a log',
      before: { state: 'ACTIVE' },
      after: { state: 'REVOKED' },
    },
  });
});

test('revoking again answers with the first time and makes no second event', () => {
  const model = new Model();
  const { keyId } = created(model, 'ci');
  const first = revoke(model, { selector: { by: 'key_id', keyId } });
  const again = revoke(model, { selector: { by: 'key_id', keyId }, reason: 'UNUSED' }, later);
  expect(again).toEqual(first);
  expect(model.events).toHaveLength(2);
});

test('a repeated request answers the key that the first revoked, though the name is another’s by now', () => {
  const model = new Model();
  const first = created(model, 'ci');
  const mutation = aMutation({ request: { method: 'RevokeKey', requestId: 'r1', hash: 'h' } });
  revoke(model, { mutation, selector: { by: 'name', name: 'ci' } });
  const second = created(model, 'ci');
  expect(revoke(model, { mutation, selector: { by: 'name', name: 'ci' } })).toMatchObject({
    key: { keyId: first.keyId },
  });
  expect(model.keys.get(second.keyId)?.standing.kind).toBe('usable');
});

describe('a name', () => {
  test('selects the current key, else the one revoked last', () => {
    const model = new Model();
    created(model, 'ci');
    revoke(model, { selector: { by: 'name', name: 'ci' } });
    const second = created(model, 'ci');
    expect(revoke(model, { selector: { by: 'name', name: 'ci' } }, later)).toMatchObject({
      key: { keyId: second.keyId },
    });
    expect(revoke(model, { selector: { by: 'name', name: 'ci' } })).toMatchObject({ key: { keyId: second.keyId } });
    expect(model.events).toHaveLength(4);
  });

  test('of several current keys is ambiguous, and none ends', () => {
    const model = new Model();
    created(model, 'ci');
    created(model, 'ci');
    expect(revoke(model, { selector: { by: 'name', name: 'ci' } })).toEqual({ refused: 'NAME_AMBIGUOUS' });
    expect(model.organization.keyCount).toBe(2);
  });

  test('takes the whole lineage with it, an id one key', () => {
    const older = aKey({ keyId: 'key_old', supersededBy: 'key_new', sequence: 1 });
    const newer = aKey({ keyId: 'key_new', lineageId: 'key_old', rotatedFrom: 'key_old', sequence: 2 });
    const lineage = (): Model => {
      const model = new Model();
      for (const key of [older, newer]) model.keys.set(key.keyId, key);
      model.organization = { ...model.organization, keyCount: 1 };
      return model;
    };
    const byName = lineage();
    expect(revoke(byName, { selector: { by: 'name', name: 'ci' } })).toMatchObject({
      key: { keyId: 'key_new' },
      previousKey: { keyId: 'key_old', standing: { kind: 'revoked' } },
    });
    expect(byName.events.map(({ keyId }) => keyId)).toEqual(['key_new', 'key_old']);
    expect(byName.organization.keyCount).toBe(0);
    const byId = lineage();
    revoke(byId, { selector: { by: 'key_id', keyId: 'key_old' } });
    expect(byId.organization.keyCount).toBe(1);
    expect(byId.keys.get('key_new')?.standing.kind).toBe('usable');
  });
});

test('what is not there cannot be revoked', () => {
  const model = new Model();
  for (const selector of [
    { by: 'key_id', keyId: 'key_x' },
    { by: 'client_id', clientId: 'client_x' },
    { by: 'name', name: 'x' },
  ] as const) {
    expect(revoke(model, { selector })).toEqual({ refused: 'KEY_NOT_FOUND' });
  }
  expect(model.organization.sequence).toBe(0);
});
