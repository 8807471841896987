import { describe, expect, test } from 'vitest';

import type { CloudEvent } from '../../src/keys/chain.js';
import type { Change } from '../../src/keys/change.js';
import { etagOf, type Key } from '../../src/keys/key.js';
import type { Keyspace } from '../../src/keys/keyspace.js';
import { isRefusal, type Refusal } from '../../src/keys/refusal.js';
import { type UpdateKey, updateKey } from '../../src/keys/update-key.js';
import { aKey, aKeyspace, aMutation, askingToUpdate, drawToUpdate, noon } from '../support/domain.js';
import { Model } from '../support/model.js';

const later = (ms: number): Date => new Date(noon.getTime() + ms);
const HOUR_MS = 3_600_000;
const REVOKED = { kind: 'revoked', time: noon, by: { type: 'USER', id: 'ada' }, reason: 'OTHER', detail: '' } as const;

/** A model that holds one key, or these. */
function withKeys(...keys: Key[]): Model {
  const model = new Model();
  for (const key of keys) model.keys.set(key.keyId, key);
  return model;
}

function tryUpdate(
  model: Model,
  { keyId }: Pick<Key, 'keyId'>,
  fields: Partial<UpdateKey>,
  { keyspace = aKeyspace(), now = noon }: { keyspace?: Keyspace; now?: Date } = {},
): { answer: Key | Refusal; change?: Change<Key> } {
  const ask = askingToUpdate({ selector: { by: 'key_id', keyId }, ...fields });
  const draw = drawToUpdate({ now });
  const { caller, request } = ask.mutation;
  let change: Change<Key> | undefined;
  const answer = model.change(
    {
      selector: ask.selector,
      ...(ask.name !== undefined && { name: ask.name === '' ? keyspace.names.default : ask.name }),
      ...(request && { request: { caller, method: request.method, requestId: request.requestId } }),
    },
    (state) => {
      const decided = updateKey(state, ask, keyspace, draw);
      if (!isRefusal(decided)) change = decided;
      return decided;
    },
  );
  return { answer, ...(change && { change }) };
}

function update(...given: Parameters<typeof tryUpdate>): { key: Key; change: Change<Key> } {
  const { answer, change } = tryUpdate(...given);
  if (isRefusal(answer) || !change) throw new Error('refused');
  return { key: answer, change };
}

function dataOf(model: Model): CloudEvent['data'] {
  return (JSON.parse(model.events.at(-1)?.cloudEvent ?? '') as CloudEvent).data;
}

/** The refusal, of a request that changed nothing. */
function refusal(...[model, ...given]: Parameters<typeof tryUpdate>): Key | Refusal {
  const before = [new Map(model.keys), model.organization];
  const { answer } = tryUpdate(model, ...given);
  expect([model.keys, model.organization]).toEqual(before);
  return answer;
}

test('what is named changes, all else stays, and the etag is another', () => {
  const key = aKey({ labels: { team: 'a', tier: '1' }, scopes: ['read'], expireTime: later(HOUR_MS) });
  const model = withKeys(key);
  const fields = { name: 'cd', labels: { team: 'b' }, scopes: ['write'], disabled: true };
  const { key: after } = update(model, key, { ...fields, expireTime: later(500) });
  expect(after).toEqual({
    ...key,
    name: 'cd',
    labels: { team: 'b' },
    scopes: ['write'],
    standing: { kind: 'disabled' },
    expireTime: later(500),
    revision: 2,
  });
  expect(etagOf(after)).not.toBe(etagOf(key));
  const { key: again } = update(model, key, { expireTime: null });
  expect(again).not.toHaveProperty('expireTime');
  expect(again).toMatchObject({ name: 'cd', revision: 3 });
});

describe('the event', () => {
  test('tells of what changed before and after, and of nothing else', () => {
    const key = aKey({ labels: { team: 'a' }, scopes: ['read'] });
    const model = withKeys(key);
    update(model, key, { labels: { team: 'b' }, scopes: ['read'] });
    expect(model.events.at(-1)).toMatchObject({ type: 'key.updated', keyId: key.keyId });
    expect(dataOf(model)).toMatchObject({ before: { labels: { team: 'a' } }, after: { labels: { team: 'b' } } });
    expect(Object.keys(dataOf(model).before ?? {})).toEqual(['labels']);
    update(model, key, { name: 'cd' });
    expect([dataOf(model).before, dataOf(model).after]).toEqual([{ name: 'ci' }, { name: 'cd' }]);
    update(model, key, { scopes: [] });
    expect([dataOf(model).before, dataOf(model).after]).toEqual([{ scopes: ['read'] }, { scopes: [] }]);
  });

  test('tells the state wherever the key is switched or its end moves', () => {
    const key = aKey({ expireTime: later(-5) });
    const model = withKeys(key);
    update(model, key, { expireTime: null });
    expect([dataOf(model).before, dataOf(model).after]).toEqual([
      { state: 'EXPIRED', expire_time: later(-5).toISOString() },
      { state: 'ACTIVE', expire_time: null },
    ]);
    update(model, key, { disabled: true });
    expect([dataOf(model).before, dataOf(model).after]).toEqual([{ state: 'ACTIVE' }, { state: 'DISABLED' }]);
    update(model, key, { disabled: false, name: 'cd' });
    expect([dataOf(model).before, dataOf(model).after]).toEqual([
      { name: 'ci', state: 'DISABLED' },
      { name: 'cd', state: 'ACTIVE' },
    ]);
  });

  test('is not made where all is as it was asked to be', () => {
    const key = aKey({ labels: { a: '1', b: '2' }, scopes: ['read'], expireTime: later(500) });
    const model = withKeys(key);
    for (const fields of [
      {},
      { name: 'ci' },
      { labels: { b: '2', a: '1' } },
      { scopes: ['read'] },
      { expireTime: later(500) },
      { disabled: false },
      { name: 'ci', labels: { a: '1', b: '2' }, scopes: ['read'], expireTime: later(500), disabled: false },
    ]) {
      const { key: same, change } = update(model, key, fields);
      expect(same).toBe(key);
      expect(change).toMatchObject({ widens: false, put: [], events: [] });
    }
    expect(model.events).toEqual([]);
  });
});

test('labels that differ by a name, a value or a number of them differ', () => {
  for (const labels of [{}, { a: '2' }, { b: '1' }, { a: '1', b: '' }]) {
    const key = aKey({ labels: { a: '1' } });
    expect(update(withKeys(key), key, { labels }).change.put).toHaveLength(1);
  }
  const key = aKey({ labels: { a: '' } });
  expect(update(withKeys(key), key, { labels: { toString: '' } }).change.put).toHaveLength(1);
});

describe('an update widens', () => {
  const widens = (fields: Partial<Key>, change: Partial<UpdateKey>): boolean => {
    const key = aKey(fields);
    return update(withKeys(key), key, change).change.widens;
  };
  const disabled = { standing: { kind: 'disabled' } } as const;

  test('where it switches on, ends later or adds a scope', () => {
    expect(widens(disabled, { disabled: false })).toBe(true);
    expect(widens({ expireTime: later(5) }, { expireTime: later(6) })).toBe(true);
    expect(widens({ expireTime: later(-5) }, { expireTime: later(6) })).toBe(true);
    expect(widens({ expireTime: later(5) }, { expireTime: null })).toBe(true);
    expect(widens({ scopes: ['read'] }, { scopes: ['read', 'write'] })).toBe(true);
    expect(widens({ scopes: ['read'] }, { scopes: ['write'] })).toBe(true);
    expect(widens({ scopes: ['read'] }, { scopes: ['write'], labels: { a: 'b' } })).toBe(true);
  });

  test('and not where it switches off, ends earlier, drops scopes, renames or marks', () => {
    expect(widens({}, { disabled: true })).toBe(false);
    expect(widens({}, { expireTime: later(5) })).toBe(false);
    expect(widens({ expireTime: later(6) }, { expireTime: later(5) })).toBe(false);
    expect(widens({ scopes: ['read', 'write'] }, { scopes: ['write'] })).toBe(false);
    expect(widens({ scopes: ['read'] }, { scopes: [] })).toBe(false);
    expect(widens({}, { name: 'cd', labels: { a: 'b' } })).toBe(false);
    expect(widens(disabled, { name: 'cd' })).toBe(false);
  });
});

describe('an end', () => {
  const max = aKeyspace({ expiration: { maxMs: HOUR_MS } });

  test('lies in the future and before the year 10000', () => {
    const key = aKey({ expireTime: later(1) });
    const model = withKeys(key);
    for (const expireTime of [noon, later(-1), new Date('+010000-01-01T00:00:00Z')]) {
      expect(refusal(model, key, { expireTime })).toMatchObject({
        refused: 'EXPIRATION_INVALID',
        field: 'key.expire_time',
      });
    }
    const past = aKey({ expireTime: later(-1) });
    expect(refusal(withKeys(past), past, { expireTime: later(-1) })).toMatchObject({ refused: 'EXPIRATION_INVALID' });
  });

  test('is put off up to the keyspace’s maximum, counted from when the key was made', () => {
    const key = aKey({ createTime: later(-1000), expireTime: later(5) });
    const model = withKeys(key);
    const end = HOUR_MS - 1000;
    expect(refusal(model, key, { expireTime: later(end + 1) }, { keyspace: max })).toMatchObject({
      refused: 'EXPIRATION_INVALID',
      field: 'key.expire_time',
    });
    expect(refusal(model, key, { expireTime: null }, { keyspace: max })).toMatchObject({
      refused: 'EXPIRATION_INVALID',
      field: 'key.expire_time',
    });
    expect(update(model, key, { expireTime: later(end) }, { keyspace: max }).key.expireTime).toEqual(later(end));
  });

  test('can always be brought forward or left, though the key has more than the keyspace allows by now', () => {
    const ancient = { createTime: later(-1000 * HOUR_MS) };
    const endless = aKey(ancient);
    expect(update(withKeys(endless), endless, { expireTime: null }, { keyspace: max }).key).toBe(endless);
    expect(
      update(withKeys(endless), endless, { expireTime: later(9 * HOUR_MS) }, { keyspace: max }).key.expireTime,
    ).toEqual(later(9 * HOUR_MS));
    const long = aKey({ ...ancient, expireTime: later(9 * HOUR_MS) });
    const model = withKeys(long);
    expect(update(model, long, { expireTime: later(9 * HOUR_MS) }, { keyspace: max }).key).toBe(long);
    expect(update(model, long, { expireTime: later(5) }, { keyspace: max }).key.expireTime).toEqual(later(5));
    expect(refusal(model, long, { expireTime: later(6) }, { keyspace: max })).toMatchObject({
      refused: 'EXPIRATION_INVALID',
    });
  });
});

describe('a name', () => {
  const unique = aKeyspace({ names: { required: true, unique: true, default: '' } });

  test('of another current key is refused where names are unique, and taken where they are not', () => {
    const [key, holder] = [aKey({ nameIsUnique: true }), aKey({ name: 'cd', nameIsUnique: true })];
    expect(refusal(withKeys(key, holder), key, { name: 'cd' }, { keyspace: unique })).toEqual({
      refused: 'NAME_TAKEN',
    });
    expect(update(withKeys(key, holder), key, { name: 'cd' }).key.name).toBe('cd');
    const gone = { ...holder, standing: REVOKED };
    expect(update(withKeys(key, gone), key, { name: 'cd' }, { keyspace: unique }).key.name).toBe('cd');
  });

  test('that the key has already is its own', () => {
    const key = aKey({ nameIsUnique: true });
    expect(update(withKeys(key), key, { name: 'ci', disabled: true }, { keyspace: unique }).key.name).toBe('ci');
  });

  test('is as unique from then on as the keyspace asks for by then', () => {
    const key = aKey({ nameIsUnique: true });
    expect(update(withKeys(key), key, { name: 'cd' }).key.nameIsUnique).toBe(false);
    expect(update(withKeys(key), key, { labels: { a: 'b' } }).key.nameIsUnique).toBe(true);
    const free = aKey();
    expect(update(withKeys(free), free, { name: 'cd' }, { keyspace: unique }).key.nameIsUnique).toBe(true);
  });

  test('that is empty is the keyspace’s default, or refused where one is required', () => {
    const key = aKey();
    const defaulted = aKeyspace({ names: { required: false, unique: false, default: 'Untitled key' } });
    expect(update(withKeys(key), key, { name: '' }, { keyspace: defaulted }).key.name).toBe('Untitled key');
    expect(refusal(withKeys(key), key, { name: '' }, { keyspace: unique })).toMatchObject({
      refused: 'NAME_REQUIRED',
      field: 'key.name',
    });
  });
});

describe('an etag', () => {
  test('that the key no longer has is refused, also where nothing would change', () => {
    const key = aKey({ revision: 5 });
    const model = withKeys(key);
    for (const fields of [{ labels: { a: 'b' } }, {}]) {
      expect(refusal(model, key, { etag: etagOf(aKey()), ...fields })).toEqual({ refused: 'ETAG_MISMATCH' });
    }
    const { key: after } = update(model, key, { etag: etagOf(key), labels: { a: 'b' } });
    expect(refusal(model, key, { etag: etagOf(key), labels: {} })).toEqual({ refused: 'ETAG_MISMATCH' });
    expect(update(model, key, { etag: etagOf(after), labels: {} }).key.revision).toBe(7);
  });

  test('is not moved by a use', () => {
    const key = aKey();
    expect(etagOf({ ...key, lastUseTime: noon })).toBe(etagOf(key));
  });
});

test('a key that is not there or revoked is not changed, also where nothing would change', () => {
  const revoked = aKey({ standing: REVOKED });
  const model = withKeys(revoked);
  expect(refusal(model, { keyId: 'key_none' }, { disabled: true })).toEqual({ refused: 'KEY_NOT_FOUND' });
  for (const fields of [{ disabled: false }, { labels: { a: 'b' } }, {}]) {
    expect(refusal(model, revoked, fields)).toEqual({ refused: 'KEY_REVOKED' });
  }
});

test('an expired key can be renamed, and made to work again', () => {
  const key = aKey({ expireTime: later(-5) });
  expect(update(withKeys(key), key, { name: 'cd' }).key.name).toBe('cd');
  expect(update(withKeys(key), key, { expireTime: later(5) }).key.expireTime).toEqual(later(5));
});

describe('a superseded key', () => {
  const superseded = (fields: Partial<Key> = {}) => aKey({ supersededBy: 'key_new', scopes: ['read'], ...fields });

  test('can be switched off and end earlier', () => {
    const endless = superseded();
    const model = withKeys(endless);
    expect(update(model, endless, { expireTime: later(9) }).key.expireTime).toEqual(later(9));
    expect(update(model, endless, { expireTime: later(8), disabled: true }).key).toMatchObject({
      expireTime: later(8),
      standing: { kind: 'disabled' },
      supersededBy: 'key_new',
    });
  });

  test('takes nothing else: no name, labels, scopes, later end, nor to be switched on', () => {
    const key = superseded({ expireTime: later(9) });
    for (const fields of [
      { name: 'cd' },
      { labels: { a: 'b' } },
      { scopes: [] },
      { scopes: ['read', 'write'] },
      { expireTime: later(10) },
      { expireTime: null },
      { disabled: true, labels: { a: 'b' } },
      { expireTime: later(5), name: 'cd' },
    ]) {
      expect(refusal(withKeys(key), key, fields)).toEqual({ refused: 'KEY_SUPERSEDED' });
    }
    const off = superseded({ standing: { kind: 'disabled' } });
    expect(refusal(withKeys(off), off, { disabled: false })).toEqual({ refused: 'KEY_SUPERSEDED' });
    expect(update(withKeys(off), off, { disabled: true, scopes: ['read'] }).change.put).toEqual([]);
  });
});

describe('a repeated request', () => {
  const mutation = (hash = 'h', caller = 'console') =>
    aMutation({ caller, request: { method: 'UpdateKey', requestId: 'r1', hash } });

  test('answers the key as it is now, whatever its etag is by now, and changes nothing', () => {
    const key = aKey();
    const model = withKeys(key);
    const ask = { mutation: mutation(), etag: etagOf(key), labels: { a: 'b' } };
    update(model, key, ask);
    const now = update(model, key, { name: 'cd' }).key;
    const { key: again, change } = update(model, key, ask);
    expect(again).toBe(now);
    expect(change).toMatchObject({ widens: false, put: [], events: [] });
  });

  test('of one that changed nothing is known, too', () => {
    const key = aKey();
    const model = withKeys(key);
    update(model, key, { mutation: mutation() });
    update(model, key, { name: 'cd' });
    expect(update(model, key, { mutation: mutation(), name: 'ci' }).key.name).toBe('cd');
  });

  test('with another body is refused, and by another caller is a new request', () => {
    const key = aKey();
    const model = withKeys(key);
    update(model, key, { mutation: mutation(), name: 'cd' });
    expect(refusal(model, key, { mutation: mutation('other'), name: 'ce' })).toEqual({ refused: 'REQUEST_ID_REUSED' });
    expect(update(model, key, { mutation: mutation('other', 'billing'), name: 'ce' }).key.name).toBe('ce');
  });

  test('of one that was refused is judged anew', () => {
    const key = aKey();
    const model = withKeys(key);
    expect(refusal(model, key, { mutation: mutation(), etag: '"x"' })).toEqual({ refused: 'ETAG_MISMATCH' });
    expect(update(model, key, { mutation: mutation(), name: 'cd' }).key.name).toBe('cd');
  });
});
