import { describe, expect, test } from 'vitest';

import { createKey, type CreateKey, type CreatedKey } from '../../src/keys/create-key.js';
import type { Keyspace } from '../../src/keys/keyspace.js';
import { isRefusal, type Refusal } from '../../src/keys/refusal.js';
import { requestHash } from '../../src/keys/repeat.js';
import { aKeyspace, aMutation, askingToCreate, drawToCreate, limitedTo, noon } from '../support/domain.js';
import { Model } from '../support/model.js';

const DAY_MS = 86_400_000;

function create(
  model: Model,
  fields: Partial<CreateKey> = {},
  keyspace: Keyspace = aKeyspace(),
  now = noon,
): CreatedKey | Refusal {
  const ask = askingToCreate(fields);
  const { request, caller } = ask.mutation;
  const draw = drawToCreate(keyspace, { now });
  return model.change(
    { name: ask.name, ...(request && { request: { caller, method: request.method, requestId: request.requestId } }) },
    (state) => createKey(state, ask, keyspace, draw),
  );
}

function created(answer: CreatedKey | Refusal): CreatedKey {
  if (isRefusal(answer)) throw new Error(`refused: ${answer.refused}`);
  return answer;
}

describe('a name', () => {
  test('is required where the keyspace says so, and defaulted where it does not', () => {
    const required = aKeyspace({ names: { required: true, unique: false, default: '' } });
    expect(create(new Model(), { name: '' }, required)).toMatchObject({ refused: 'NAME_REQUIRED', field: 'name' });
    const defaulted = aKeyspace({ names: { required: false, unique: false, default: 'Untitled key' } });
    expect(created(create(new Model(), { name: '' }, defaulted)).key.name).toBe('Untitled key');
  });

  test('is taken once where names are unique, and as often as wanted where they are not', () => {
    const unique = aKeyspace({ names: { required: true, unique: true, default: '' } });
    const model = new Model();
    created(create(model, { name: 'ci' }, unique));
    expect(create(model, { name: 'ci' }, unique)).toEqual({ refused: 'NAME_TAKEN' });
    expect(model.keys.size).toBe(1);
    created(create(model, { name: 'CI' }, unique));
    const free = new Model();
    created(create(free, { name: 'ci' }));
    created(create(free, { name: 'ci' }));
    expect(free.keys.size).toBe(2);
  });
});

test('a type is one of the keyspace, or its default, or none where it has none', () => {
  const typed = aKeyspace({ types: { allowed: ['GENERIC', 'AWS'], default: 'GENERIC' } });
  expect(created(create(new Model(), { type: '' }, typed)).key.type).toBe('GENERIC');
  expect(created(create(new Model(), { type: 'AWS' }, typed)).key.type).toBe('AWS');
  expect(create(new Model(), { type: 'aws' }, typed)).toMatchObject({
    refused: 'TYPE_INVALID',
    message: 'type must be one of GENERIC, AWS',
  });
  const stated = aKeyspace({ types: { allowed: ['GENERIC'] } });
  expect(create(new Model(), { type: '' }, stated)).toMatchObject({ refused: 'TYPE_INVALID' });
  expect(create(new Model(), { type: 'AWS' }, aKeyspace())).toMatchObject({ refused: 'TYPE_INVALID' });
});

describe('an expiry', () => {
  const at = (time: Date): Partial<CreateKey> => ({ expiration: { kind: 'at', time } });
  const after = (ttlMs: number): Partial<CreateKey> => ({ expiration: { kind: 'after', ttlMs } });

  test('lies in the future: now is too early', () => {
    for (const fields of [at(noon), at(new Date(noon.getTime() - 1)), after(0), after(-DAY_MS)]) {
      expect(create(new Model(), fields)).toMatchObject({ refused: 'EXPIRATION_INVALID' });
    }
    expect(created(create(new Model(), after(1))).key.expireTime).toEqual(new Date(noon.getTime() + 1));
  });

  test('lies before the year 10000, which no timestamp can name', () => {
    expect(create(new Model(), after(Number.MAX_VALUE))).toMatchObject({ refused: 'EXPIRATION_INVALID' });
    expect(create(new Model(), at(new Date('+010000-01-01T00:00:00Z')))).toMatchObject({
      refused: 'EXPIRATION_INVALID',
    });
  });

  test('lies within the keyspace’s maximum, which also limits a key created without one', () => {
    const keyspace = aKeyspace({ expiration: { maxMs: DAY_MS } });
    expect(create(new Model(), after(DAY_MS + 1), keyspace)).toMatchObject({
      refused: 'EXPIRATION_INVALID',
      field: 'ttl',
    });
    expect(created(create(new Model(), after(DAY_MS), keyspace)).key.expireTime).toEqual(
      new Date(noon.getTime() + DAY_MS),
    );
    expect(created(create(new Model(), {}, keyspace)).key.expireTime).toEqual(new Date(noon.getTime() + DAY_MS));
  });

  test('is the keyspace’s default where none is asked for, else none', () => {
    const keyspace = aKeyspace({ expiration: { defaultMs: DAY_MS } });
    expect(created(create(new Model(), {}, keyspace)).key.expireTime).toEqual(new Date(noon.getTime() + DAY_MS));
    expect(created(create(new Model())).key.expireTime).toBeUndefined();
  });
});

test('a plan’s last place can be taken, and none beyond it', () => {
  const model = new Model();
  const keyspace = limitedTo(2);
  created(create(model, { name: 'a' }, keyspace));
  created(create(model, { name: 'b' }, keyspace));
  expect(create(model, { name: 'c' }, keyspace)).toEqual({ refused: 'KEY_LIMIT_REACHED', limit: 2, plan: 'free' });
  expect(model.organization).toMatchObject({ keyCount: 2, sequence: 2 });
});

describe('a repeated request', () => {
  const mutation = (body: object, caller = 'console') =>
    aMutation({ caller, request: { method: 'CreateKey', requestId: 'r1', hash: requestHash(body) } });

  test('answers the first key as it is now, and makes no second', () => {
    const model = new Model();
    const first = created(create(model, { mutation: mutation({ name: 'ci' }) }));
    const again = created(create(model, { mutation: mutation({ name: 'ci' }) }));
    expect(again).toEqual({ key: first.key, replayed: true });
    expect(model.events).toHaveLength(1);
  });

  test('is not judged by what has changed since: an expiry that has passed, a limit that is reached', () => {
    const model = new Model();
    const keyspace = limitedTo(1);
    const soon: Partial<CreateKey> = {
      mutation: mutation({}),
      expiration: { kind: 'at', time: new Date(noon.getTime() + 1000) },
    };
    const first = created(create(model, soon, keyspace));
    const later = new Date(noon.getTime() + 5000);
    expect(create(model, soon, keyspace, later)).toEqual({ key: first.key, replayed: true });
  });

  test('with another body is refused, by another caller is a new request', () => {
    const model = new Model();
    created(create(model, { mutation: mutation({ name: 'ci' }) }));
    expect(create(model, { mutation: mutation({ name: 'cd' }) })).toEqual({ refused: 'REQUEST_ID_REUSED' });
    expect(created(create(model, { mutation: mutation({ name: 'cd' }, 'billing') })).replayed).toBe(false);
    expect(model.keys.size).toBe(2);
  });

  test('of one that was refused is judged anew', () => {
    const model = new Model();
    const ask: Partial<CreateKey> = { mutation: mutation({}), name: '' };
    const strict = aKeyspace({ names: { required: true, unique: false, default: '' } });
    expect(create(model, ask, strict)).toMatchObject({ refused: 'NAME_REQUIRED' });
    expect(created(create(model, ask)).replayed).toBe(false);
  });
});

test('a key has a public id, and in pair form a client id, where the keyspace asks for them', () => {
  const { key } = created(create(new Model(), {}, aKeyspace({ publicIdPrefix: 'shop' })));
  expect(key.publicId).toBe(`shop.${key.keyId.slice(4)}`);
  expect(key.clientId).toBeUndefined();
  const pair = aKeyspace({ credential: { kind: 'pair', prefix: '', bodyLength: 49, display: 'last_four' } });
  expect(created(create(new Model(), {}, pair)).key.clientId).toMatch(/^client_/);
});
