import { describe, expect, test } from 'vitest';

import type { CloudEvent } from '../../src/keys/chain.js';
import type { Change, Load } from '../../src/keys/change.js';
import { createKey } from '../../src/keys/create-key.js';
import { judgeKey } from '../../src/keys/judge-key.js';
import { etagOf, type Key } from '../../src/keys/key.js';
import type { Keyspace } from '../../src/keys/keyspace.js';
import { isRefusal, type Refusal } from '../../src/keys/refusal.js';
import { revokeKey } from '../../src/keys/revoke-key.js';
import { type RotatedKey, type RotateKey, type RotateKeyDraw, rotateKey } from '../../src/keys/rotate-key.js';
import {
  acme,
  aKeyspace,
  aMutation,
  askingToCreate,
  askingToRevoke,
  askingToRotate,
  drawToCreate,
  drawToRevoke,
  drawToRotate,
  limitedTo,
  noon,
} from '../support/domain.js';
import { Model } from '../support/model.js';

const later = (ms: number): Date => new Date(noon.getTime() + ms);

function create(model: Model, fields: Parameters<typeof askingToCreate>[0] = {}, keyspace = aKeyspace()): Key {
  const ask = askingToCreate(fields);
  const draw = drawToCreate(keyspace);
  const answer = model.change({ name: ask.name }, (state) => createKey(state, ask, keyspace, draw));
  if (isRefusal(answer)) throw new Error(`refused: ${answer.refused}`);
  return answer.key;
}

interface Given {
  readonly keyspace?: Keyspace;
  readonly draw?: Partial<RotateKeyDraw>;
}

/** The rule's answer, carried out in the model, with the change that it was. */
function tryRotate(
  model: Model,
  key: Pick<Key, 'keyId'>,
  fields: Partial<RotateKey> = {},
  { keyspace = aKeyspace(), draw: drawn = {} }: Given = {},
): { answer: RotatedKey | Refusal; change?: Change<RotatedKey> } {
  const ask = askingToRotate({ selector: { by: 'key_id', keyId: key.keyId }, ...fields });
  const draw = drawToRotate(keyspace, drawn);
  const { caller, request } = ask.mutation;
  const load: Omit<Load, 'organization'> = {
    selector: ask.selector,
    withLineage: true,
    ...(request && { request: { caller, method: request.method, requestId: request.requestId } }),
  };
  let change: Change<RotatedKey> | undefined;
  const answer = model.change(load, (state) => {
    const decided = rotateKey(state, ask, keyspace, draw);
    if (!isRefusal(decided)) change = decided;
    return decided;
  });
  return { answer, ...(change && { change }) };
}

function rotate(...given: Parameters<typeof tryRotate>): RotatedKey & { change: Change<RotatedKey> } {
  const { answer, change } = tryRotate(...given);
  if (isRefusal(answer) || !change) throw new Error('refused');
  return { ...answer, change };
}

function revoke(model: Model, { keyId }: Key): void {
  const ask = askingToRevoke({ selector: { by: 'key_id', keyId } });
  model.change({ selector: ask.selector }, (state) => revokeKey(state, ask, drawToRevoke()));
}

const envelopeOf = (model: Model, at: number): CloudEvent =>
  JSON.parse(model.events.at(at)?.cloudEvent ?? '') as CloudEvent;

test('the new key takes over name, type, scopes, labels, expiry and lineage, with a credential and ids of its own', () => {
  const keyspace = aKeyspace({
    publicIdPrefix: 'shop',
    credential: { kind: 'pair', prefix: '', bodyLength: 49, display: 'last_four' },
    types: { allowed: ['AWS', 'GCP'], default: 'AWS' },
    names: { required: true, unique: true, default: '' },
  });
  const model = new Model();
  const old = create(
    model,
    {
      type: 'GCP',
      scopes: ['read'],
      labels: { team: 'a' },
      expiration: { kind: 'after', ttlMs: 5000 },
    },
    keyspace,
  );
  const draw = drawToRotate(keyspace, { now: later(1000) });
  const { key, previousKey } = rotate(model, old, {}, { keyspace, draw });
  expect(key).toEqual({
    ...acme,
    keyId: draw.keyId,
    publicId: `shop.${draw.keyId.slice(4)}`,
    clientId: draw.credential.clientId,
    lineageId: old.keyId,
    rotatedFrom: old.keyId,
    name: 'ci',
    nameIsUnique: true,
    type: 'GCP',
    display: draw.credential.display,
    digest: draw.credential.digest,
    scopes: ['read'],
    labels: { team: 'a' },
    standing: { kind: 'usable' },
    createTime: later(1000),
    createdBy: { type: 'USER', id: 'ada' },
    expireTime: old.expireTime,
    sequence: 2,
    revision: 1,
  });
  expect(previousKey).toEqual({ ...old, supersededBy: key.keyId, revision: 2 });
  expect(key.clientId).not.toBe(old.clientId);
});

test('a lineage keeps the id of its first key through every rotation', () => {
  const model = new Model();
  const first = create(model);
  const second = rotate(model, first).key;
  const third = rotate(model, second).key;
  expect([second, third].map(({ lineageId }) => lineageId)).toEqual([first.keyId, first.keyId]);
  expect(third.rotatedFrom).toBe(second.keyId);
});

describe('the overlap', () => {
  const works = (key: Key, time: Date): boolean =>
    judgeKey(key, { suspended: false }, { requiredScopes: [] }, time) === 'VALID';

  test('unset leaves the old key working until it is revoked', () => {
    const model = new Model();
    const { previousKey, change } = rotate(model, create(model));
    expect(previousKey.expireTime).toBeUndefined();
    expect(works(previousKey, new Date(8e15))).toBe(true);
    expect(change.widens).toBe(true);
  });

  test('unset ends with the longest that the keyspace allows, where it has one', () => {
    const model = new Model();
    const keyspace = aKeyspace({ overlapMaxMs: 5000 });
    expect(rotate(model, create(model), {}, { keyspace }).previousKey.expireTime).toEqual(later(5000));
  });

  test('unset is refused where the keyspace allows none: to end a key at once has to be said', () => {
    const model = new Model();
    const keyspace = aKeyspace({ overlapMaxMs: 0 });
    const old = create(model);
    expect(tryRotate(model, old, {}, { keyspace }).answer).toMatchObject({
      refused: 'OVERLAP_INVALID',
      field: 'overlap',
    });
    expect(rotate(model, old, { overlapMs: 0 }, { keyspace }).previousKey.standing.kind).toBe('revoked');
  });

  test('positive brings the old key’s end forward, and never puts it off', () => {
    const model = new Model();
    const endless = rotate(model, create(model), { overlapMs: 3000 });
    expect(endless.previousKey).toMatchObject({ expireTime: later(3000), standing: { kind: 'usable' } });
    expect(endless.key.expireTime).toBeUndefined();
    expect(endless.change.widens).toBe(true);
    const short = create(model, { expiration: { kind: 'after', ttlMs: 2000 } });
    expect(rotate(model, short, { overlapMs: 3000 }).previousKey.expireTime).toEqual(later(2000));
    const long = create(model, { expiration: { kind: 'after', ttlMs: 4000 } });
    const { key, previousKey } = rotate(model, long, { overlapMs: 3000 });
    expect(previousKey.expireTime).toEqual(later(3000));
    expect(key.expireTime).toEqual(later(4000));
  });

  test('past the year 9999, where times end that can be told, brings no end forward', () => {
    const model = new Model();
    const { previousKey } = rotate(model, create(model), { overlapMs: Number.MAX_SAFE_INTEGER });
    expect(previousKey.expireTime).toBeUndefined();
    const years = (count: number) => ({ overlapMs: count * 365.2425 * 86_400_000 });
    expect(rotate(model, create(model), years(7972)).previousKey.expireTime?.getUTCFullYear()).toBe(9998);
    expect(rotate(model, create(model), years(7975)).previousKey.expireTime).toBeUndefined();
  });

  test('of 0 revokes the old key at once as superseded, and only hands access on', () => {
    const model = new Model();
    const old = create(model);
    const { previousKey, key, change } = rotate(model, old, { overlapMs: 0 });
    expect(previousKey).toEqual({
      ...old,
      supersededBy: key.keyId,
      standing: { kind: 'revoked', time: noon, by: { type: 'USER', id: 'ada' }, reason: 'SUPERSEDED', detail: '' },
      revision: 2,
    });
    expect(change.widens).toBe(false);
    expect(model.events.map(({ type }) => type)).toEqual(['key.created', 'key.rotated']);
    expect(envelopeOf(model, -1).data.reason).toBe('SUPERSEDED');
  });

  test('of 0 widens where the new key ends later than the old one', () => {
    const model = new Model();
    const old = () => create(model, { expiration: { kind: 'after', ttlMs: 2000 } });
    const { change } = rotate(model, old(), { overlapMs: 0, expiration: { kind: 'after', ttlMs: 3000 } });
    expect(change.widens).toBe(true);
    const sooner = rotate(model, old(), { overlapMs: 0, expiration: { kind: 'after', ttlMs: 1000 } });
    expect(sooner.change.widens).toBe(false);
  });

  test('up to the keyspace’s maximum is taken, and beyond it refused', () => {
    const keyspace = aKeyspace({ overlapMaxMs: 5000 });
    const model = new Model();
    const old = create(model);
    expect(tryRotate(model, old, { overlapMs: 5001 }, { keyspace }).answer).toMatchObject({
      refused: 'OVERLAP_INVALID',
      field: 'overlap',
      message: 'overlap must be at most 5 seconds in this keyspace',
    });
    expect(model.events).toHaveLength(1);
    expect(rotate(model, old, { overlapMs: 5000 }, { keyspace }).previousKey.expireTime).toEqual(later(5000));
  });
});

describe('the new key’s end', () => {
  const hour = 3_600_000;

  test('is later than the old key’s only where that is asked for', () => {
    const model = new Model();
    const old = create(model, { expiration: { kind: 'after', ttlMs: hour } });
    const taken = rotate(model, old, {}, { draw: { now: later(1000) } }).key;
    expect(taken.expireTime).toEqual(later(hour));
    const given = rotate(model, taken, { expiration: { kind: 'after', ttlMs: 2 * hour } }).key;
    expect(given.expireTime).toEqual(later(2 * hour));
    const at = rotate(model, given, { expiration: { kind: 'at', time: later(9 * hour) } }).key;
    expect(at.expireTime).toEqual(later(9 * hour));
  });

  test('that is given obeys the rules for new keys', () => {
    const model = new Model();
    const keyspace = aKeyspace({ expiration: { maxMs: hour } });
    const old = create(model);
    for (const expiration of [
      { kind: 'after', ttlMs: hour + 1 },
      { kind: 'at', time: noon },
      { kind: 'at', time: later(-1) },
    ] as const) {
      expect(tryRotate(model, old, { expiration }, { keyspace }).answer).toMatchObject({
        refused: 'EXPIRATION_INVALID',
      });
    }
    expect(model.events).toHaveLength(1);
  });

  test('lies within what the keyspace allows by now, though the old key had more', () => {
    const keyspace = aKeyspace({ expiration: { maxMs: hour } });
    const model = new Model();
    expect(rotate(model, create(model), {}, { keyspace }).key.expireTime).toEqual(later(hour));
    const long = create(model, { expiration: { kind: 'after', ttlMs: 5 * hour } });
    expect(rotate(model, long, {}, { keyspace }).key.expireTime).toEqual(later(hour));
    const short = create(model, { expiration: { kind: 'after', ttlMs: 1000 } });
    expect(rotate(model, short, {}, { keyspace }).key.expireTime).toEqual(later(1000));
  });
});

describe('rotating again', () => {
  test('ends the older key of the lineage, with an event of its own', () => {
    const model = new Model();
    const first = create(model);
    const second = rotate(model, first, { overlapMs: 60_000 }).key;
    const { key: third, previousKey } = rotate(model, second, { overlapMs: 60_000 }, { draw: { now: later(10) } });
    expect(previousKey.keyId).toBe(second.keyId);
    expect(model.keys.get(first.keyId)?.standing).toMatchObject({
      kind: 'revoked',
      time: later(10),
      reason: 'SUPERSEDED',
    });
    expect(model.events.slice(2).map(({ type, keyId }) => [type, keyId])).toEqual([
      ['key.rotated', third.keyId],
      ['key.revoked', first.keyId],
    ]);
    expect(envelopeOf(model, -1).data).toMatchObject({
      key: { key_id: first.keyId },
      reason: 'SUPERSEDED',
      before: { state: 'ACTIVE' },
      after: { state: 'REVOKED' },
    });
    expect(model.organization.keyCount).toBe(1);
  });

  test('ends an older key that has expired meanwhile, too, and leaves alone one that was revoked', () => {
    const model = new Model();
    const first = create(model);
    const second = rotate(model, first, { overlapMs: 1000 }).key;
    const third = rotate(model, second, { overlapMs: 1000 }, { draw: { now: later(5000) } }).key;
    expect(envelopeOf(model, -1).data).toMatchObject({ before: { state: 'EXPIRED' }, after: { state: 'REVOKED' } });
    const revoked = model.keys.get(first.keyId);
    const { change } = rotate(model, third, { overlapMs: 0 }, { draw: { now: later(5500) } });
    expect(change.put.map(({ after }) => after.keyId)).not.toContain(first.keyId);
    expect(model.keys.get(first.keyId)).toBe(revoked);
  });
});

test('one event names both keys, with what the rotation meant for the old one', () => {
  const model = new Model();
  const old = create(model, { scopes: ['read'] });
  const { key } = rotate(model, old, { overlapMs: 1000 });
  expect(model.events.at(-1)).toMatchObject({ type: 'key.rotated', keyId: key.keyId, previousKeyId: old.keyId });
  expect(envelopeOf(model, -1)).toMatchObject({
    subject: `shop/acme/${key.keyId}`,
    data: {
      key: { key_id: key.keyId, name: 'ci', display: key.display },
      after: { name: 'ci', state: 'ACTIVE', scopes: ['read'], labels: {}, expire_time: null },
      previous_key: {
        key_id: old.keyId,
        display: old.display,
        before: { state: 'ACTIVE', expire_time: null },
        after: { state: 'ACTIVE', expire_time: later(1000).toISOString() },
      },
    },
  });
  expect(envelopeOf(model, -1).data).not.toHaveProperty('reason');
  rotate(model, key, { overlapMs: 0 });
  expect(envelopeOf(model, -2).data.previous_key?.after).toEqual({ state: 'REVOKED', expire_time: null });
});

describe('names and limits', () => {
  const unique = { required: true, unique: true, default: '' };

  test('go from the old key to the new: at the limit a key rotates, and no place or name comes free', () => {
    const keyspace = limitedTo(1, { names: unique });
    const model = new Model();
    const old = create(model, {}, keyspace);
    rotate(model, old, { overlapMs: 60_000 }, { keyspace });
    expect(model.organization.keyCount).toBe(1);
    expect(() => create(model, {}, keyspace)).toThrow('NAME_TAKEN');
    expect(() => create(model, { name: 'other' }, keyspace)).toThrow('KEY_LIMIT_REACHED');
  });

  test('do not stop a rotation when a plan became smaller than what is there', () => {
    const model = new Model();
    const [first] = [create(model, { name: 'a' }), create(model, { name: 'b' })];
    rotate(model, first, {}, { keyspace: limitedTo(1) });
    expect(model.organization.keyCount).toBe(2);
  });

  test('of the name alone select the new key, as the old one is superseded', () => {
    const model = new Model();
    const { key } = rotate(model, create(model));
    const selector = { by: 'name', name: 'ci' } as const;
    expect(rotate(model, { keyId: '' }, { selector }).previousKey.keyId).toBe(key.keyId);
  });
});

test('a key that is switched off rotates into one that is switched off', () => {
  const model = new Model();
  const old = create(model);
  model.keys.set(old.keyId, { ...old, standing: { kind: 'disabled' } });
  expect(rotate(model, old).key.standing).toEqual({ kind: 'disabled' });
});

describe('refused, with nothing changed,', () => {
  const refusal = (model: Model, key: Pick<Key, 'keyId'>, given: Given = {}, fields: Partial<RotateKey> = {}) => {
    const before = [new Map(model.keys), model.organization];
    const { answer } = tryRotate(model, key, fields, given);
    expect([model.keys, model.organization]).toEqual(before);
    return answer;
  };

  test('is a key that is not there, revoked, superseded or expired', () => {
    const model = new Model();
    expect(refusal(model, { keyId: 'key_none' })).toEqual({ refused: 'KEY_NOT_FOUND' });
    const revoked = create(model);
    revoke(model, revoked);
    expect(refusal(model, revoked)).toEqual({ refused: 'KEY_REVOKED' });
    const superseded = create(model);
    rotate(model, superseded);
    expect(refusal(model, superseded)).toEqual({ refused: 'KEY_SUPERSEDED' });
    const expired = create(model, { expiration: { kind: 'after', ttlMs: 1000 } });
    expect(refusal(model, expired, { draw: { now: later(1000) } })).toEqual({ refused: 'KEY_EXPIRED' });
    expect(tryRotate(model, expired, {}, { draw: { now: later(999) } }).answer).toMatchObject({ replayed: false });
  });

  test('is a name that several keys have', () => {
    const model = new Model();
    create(model);
    create(model);
    const selector = { by: 'name', name: 'ci' } as const;
    expect(refusal(model, { keyId: '' }, {}, { selector })).toEqual({ refused: 'NAME_AMBIGUOUS' });
  });

  test('is every key of a suspended organization, also with overlap 0', () => {
    const model = new Model();
    const old = create(model);
    model.organization = { ...model.organization, suspended: true };
    for (const overlapMs of [0, 1000]) {
      expect(refusal(model, old, {}, { overlapMs })).toEqual({ refused: 'ORGANIZATION_SUSPENDED' });
    }
  });
});

describe('a repeated request', () => {
  const mutation = (hash = 'h', caller = 'console') =>
    aMutation({ caller, request: { method: 'RotateKey', requestId: 'r1', hash } });

  test('answers both keys as they are now, makes no other, and says that it is a repeat', () => {
    const model = new Model();
    const { key, previousKey } = rotate(model, create(model), { mutation: mutation() });
    revoke(model, previousKey);
    const again = rotate(model, previousKey, { mutation: mutation() }, { draw: { now: later(99) } });
    expect(again).toMatchObject({ key, previousKey: { keyId: previousKey.keyId, standing: { kind: 'revoked' } } });
    expect(again.replayed).toBe(true);
    expect(again.change).toMatchObject({ widens: false, put: [], events: [] });
    expect(model.keys.size).toBe(2);
  });

  test('with another body is refused, and by another caller is judged as a new one', () => {
    const model = new Model();
    const old = create(model);
    const { key } = rotate(model, old, { mutation: mutation() });
    expect(tryRotate(model, key, { mutation: mutation('other') }).answer).toEqual({ refused: 'REQUEST_ID_REUSED' });
    expect(tryRotate(model, old, { mutation: mutation('h', 'billing') }).answer).toEqual({ refused: 'KEY_SUPERSEDED' });
  });
});

test('a create whose answer was lost is recovered by rotating the key with overlap 0', () => {
  const model = new Model();
  const keyspace = limitedTo(1, { names: { required: true, unique: true, default: '' } });
  const lost = create(model, {}, keyspace);
  const { key, previousKey } = rotate(model, lost, { overlapMs: 0 }, { keyspace });
  expect(previousKey.standing.kind).toBe('revoked');
  expect(key).toMatchObject({ name: 'ci', standing: { kind: 'usable' } });
  expect(etagOf(key)).not.toBe(etagOf(previousKey));
  expect(model.organization.keyCount).toBe(1);
});
