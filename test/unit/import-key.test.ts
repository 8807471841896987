import { describe, expect, test } from 'vitest';

import type { CloudEvent } from '../../src/keys/chain.js';
import type { Change } from '../../src/keys/change.js';
import { type ImportedKey, type ImportKey, importKey } from '../../src/keys/import-key.js';
import type { Key } from '../../src/keys/key.js';
import type { Keyspace } from '../../src/keys/keyspace.js';
import { isRefusal, type Refusal } from '../../src/keys/refusal.js';
import { acme, aKey, aKeyspace, aMutation, askingToImport, drawToImport, limitedTo, noon } from '../support/domain.js';
import { Model } from '../support/model.js';

const later = (ms: number): Date => new Date(noon.getTime() + ms);
const HOUR_MS = 3_600_000;

function tryImport(
  model: Model,
  fields: Partial<ImportKey> = {},
  keyspace: Keyspace = aKeyspace(),
  draw = drawToImport(),
): { answer: ImportedKey | Refusal; change?: Change<ImportedKey> } {
  const ask = askingToImport(fields);
  const { clientId } = ask;
  let change: Change<ImportedKey> | undefined;
  const answer = model.change(
    {
      name: ask.name,
      digests: [ask.digest.bytes],
      ...(clientId !== undefined && { selector: { by: 'client_id', clientId } }),
    },
    (state) => {
      const decided = importKey(state, ask, keyspace, draw);
      if (!isRefusal(decided)) change = decided;
      return decided;
    },
  );
  return { answer, ...(change && { change }) };
}

function imported(...given: Parameters<typeof tryImport>): ImportedKey & { change: Change<ImportedKey> } {
  const { answer, change } = tryImport(...given);
  if (isRefusal(answer) || !change) throw new Error('refused');
  return { ...answer, change };
}

function refusal(...[model, ...given]: Parameters<typeof tryImport>): ImportedKey | Refusal {
  const before = [new Map(model.keys), model.organization];
  const { answer } = tryImport(model, ...given);
  expect([model.keys, model.organization]).toEqual(before);
  return answer;
}

function withKeys(...keys: Key[]): Model {
  const model = new Model();
  for (const key of keys) model.keys.set(key.keyId, key);
  model.organization = { ...model.organization, keyCount: keys.length };
  return model;
}

test('a key comes with all that was said of it, under an id of its own, with one event', () => {
  const model = new Model();
  const keyspace = aKeyspace({
    publicIdPrefix: 'shop',
    types: { allowed: ['AWS'] },
    names: { required: true, unique: true, default: '' },
  });
  const ask = askingToImport({
    clientId: 'an id of before',
    display: 'hd_live_****',
    type: 'AWS',
    scopes: ['read'],
    labels: { team: 'a' },
    createTime: later(-9 * HOUR_MS),
    expireTime: later(-HOUR_MS),
    disabled: true,
  });
  const draw = drawToImport();
  const { key, alreadyImported, change } = imported(model, ask, keyspace, draw);
  expect(alreadyImported).toBe(false);
  expect(key).toEqual({
    ...acme,
    keyId: draw.keyId,
    publicId: `shop.${draw.keyId.slice(4)}`,
    clientId: 'an id of before',
    lineageId: draw.keyId,
    name: 'ci',
    nameIsUnique: true,
    type: 'AWS',
    display: 'hd_live_****',
    digest: ask.digest,
    scopes: ['read'],
    labels: { team: 'a' },
    standing: { kind: 'disabled' },
    createTime: later(-9 * HOUR_MS),
    createdBy: { type: 'USER', id: 'ada' },
    expireTime: later(-HOUR_MS),
    sequence: 1,
    revision: 1,
  });
  expect(change.widens).toBe(true);
  expect(model.events).toMatchObject([{ type: 'key.imported', keyId: key.keyId, time: noon }]);
  const { data } = JSON.parse(model.events[0]?.cloudEvent ?? '') as CloudEvent;
  expect(data.after).toEqual({
    name: 'ci',
    type: 'AWS',
    state: 'DISABLED',
    scopes: ['read'],
    labels: { team: 'a' },
    expire_time: later(-HOUR_MS).toISOString(),
  });
  expect(data).not.toHaveProperty('before');
  expect(JSON.stringify(data)).not.toContain(Buffer.from(ask.digest.bytes).toString('hex'));
  expect(model.organization.keyCount).toBe(1);
});

test('what was not said is the keyspace’s default, now, and without end', () => {
  const keyspace = aKeyspace({
    names: { required: false, unique: false, default: 'Untitled key' },
    types: { allowed: ['AWS'], default: 'AWS' },
  });
  const { key } = imported(new Model(), { name: '' }, keyspace);
  expect(key).toMatchObject({ name: 'Untitled key', type: 'AWS', createTime: noon, standing: { kind: 'usable' } });
  expect(key).not.toHaveProperty('expireTime');
  expect(key).not.toHaveProperty('publicId');
});

describe('importing again', () => {
  test('answers the key as it is now and changes nothing, whatever else is said of it', () => {
    const model = new Model();
    const ask = askingToImport({ clientId: 'c' });
    const { key } = imported(model, ask);
    const now = { ...key, name: 'renamed', revision: 2 };
    model.keys.set(key.keyId, now);
    const again = imported(model, { ...ask, name: 'other', createTime: later(5), labels: { a: 'b' } });
    expect(again).toMatchObject({ alreadyImported: true, change: { widens: false, put: [], events: [] } });
    expect(again.key).toBe(now);
  });

  test('is not refused for the name, the place or the suspension that it needs no more', () => {
    const keyspace = limitedTo(1, { names: { required: true, unique: true, default: '' } });
    const model = new Model();
    const ask = askingToImport();
    imported(model, ask, keyspace);
    model.organization = { ...model.organization, suspended: true };
    expect(imported(model, ask, keyspace).alreadyImported).toBe(true);
  });

  test('does not bring back a key that was revoked', () => {
    const model = new Model();
    const ask = askingToImport();
    const { key } = imported(model, ask);
    const by = { type: 'USER', id: 'ada' } as const;
    model.keys.set(key.keyId, { ...key, standing: { kind: 'revoked', time: noon, by, reason: 'OTHER', detail: '' } });
    const again = imported(model, ask);
    expect(again).toMatchObject({ alreadyImported: true, key: { standing: { kind: 'revoked' } } });
    expect(again.change.put).toEqual([]);
  });
});

describe('refused, with nothing changed,', () => {
  test('is a digest that a key of another organization has', () => {
    const holder = aKey({ organizationId: 'umbrella' });
    expect(refusal(withKeys(holder), { digest: holder.digest })).toEqual({ refused: 'DIGEST_TAKEN', by: 'digest' });
  });

  test('is a client id that another key of the organization has, revoked or not', () => {
    const holder = aKey({ clientId: 'c' });
    expect(refusal(withKeys(holder), { clientId: 'c' })).toEqual({ refused: 'DIGEST_TAKEN', by: 'client_id' });
    imported(withKeys(holder), { clientId: 'd' });
  });

  test('is a digest that the organization has under another client id: that pair would never verify', () => {
    const holder = aKey({ clientId: 'c' });
    const { digest } = holder;
    expect(refusal(withKeys(holder), { digest, clientId: 'd' })).toEqual({ refused: 'DIGEST_TAKEN', by: 'client_id' });
    expect(imported(withKeys(holder), { digest, clientId: 'c' }).alreadyImported).toBe(true);
  });

  test('is a name that another current key has, where names are unique', () => {
    const unique = aKeyspace({ names: { required: true, unique: true, default: '' } });
    const holder = aKey();
    expect(refusal(withKeys(holder), {}, unique)).toEqual({ refused: 'NAME_TAKEN' });
    imported(withKeys(holder), {});
    imported(withKeys({ ...holder, supersededBy: 'key_new' }), {}, unique);
  });

  test('is a key beyond the limit, one that is expired or switched off like any other', () => {
    const model = withKeys(aKey());
    for (const fields of [{}, { disabled: true }, { expireTime: later(-5) }]) {
      expect(refusal(model, fields, limitedTo(1))).toEqual({ refused: 'KEY_LIMIT_REACHED', limit: 1, plan: 'free' });
    }
  });

  test('is a key of a suspended organization', () => {
    const model = new Model();
    model.organization = { ...model.organization, suspended: true };
    expect(refusal(model)).toEqual({ refused: 'ORGANIZATION_SUSPENDED' });
  });

  test('is a name or type that the keyspace does not take', () => {
    const strict = aKeyspace({
      names: { required: true, unique: false, default: '' },
      types: { allowed: ['AWS'], default: 'AWS' },
    });
    expect(refusal(new Model(), { name: '' }, strict)).toMatchObject({ refused: 'NAME_REQUIRED' });
    expect(refusal(new Model(), { type: 'GCP' }, strict)).toMatchObject({ refused: 'TYPE_INVALID' });
  });

  test('is a key that was made in the future', () => {
    expect(refusal(new Model(), { createTime: later(1) })).toMatchObject({
      refused: 'EXPIRATION_INVALID',
      field: 'create_time',
    });
    expect(imported(new Model(), { createTime: noon }).key.createTime).toEqual(noon);
  });

  test('is a key that would live longer from now on than the keyspace lets new ones', () => {
    const keyspace = aKeyspace({ expiration: { maxMs: HOUR_MS, defaultMs: 1000 } });
    for (const fields of [{}, { expireTime: later(HOUR_MS + 1) }]) {
      expect(refusal(new Model(), fields, keyspace)).toMatchObject({
        refused: 'EXPIRATION_INVALID',
        field: 'expire_time',
      });
    }
    const old = { createTime: later(-9 * HOUR_MS), expireTime: later(HOUR_MS) };
    expect(imported(new Model(), old, keyspace).key.expireTime).toEqual(later(HOUR_MS));
  });
});

test('an import names its request in the event, and remembers none: the digest tells a repeat', () => {
  const model = new Model();
  const mutation = aMutation({ request: { method: 'ImportKeys', requestId: 'r1', hash: 'h' } });
  const { change } = imported(model, { mutation });
  expect(change).not.toHaveProperty('request');
  expect((JSON.parse(model.events[0]?.cloudEvent ?? '') as CloudEvent).data.request_id).toBe('r1');
});
