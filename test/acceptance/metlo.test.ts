import { expect, test } from 'vitest';

import { KeyState } from '../../src/gen/keyreeve/v1/key.js';
import { ImportKeysItem } from '../../src/gen/keyreeve/v1/key_service.js';
import { Decision } from '../../src/gen/keyreeve/v1/verification.js';
import {
  aUser,
  bearer,
  describeProduct,
  expectLetIn,
  expectNeverToldAgain,
  expectRefused,
  expectTurnedDown,
  expectWithout,
  neverIssued,
  secretOf,
  sha256,
  toMs,
} from '../support/product.js';

const UNAUTHORIZED = '{"error":"unauthorized"}';
const TYPES = ['GENERIC', 'ONBOARDING', 'GCP', 'AWS'];

describeProduct('metlo', aUser('ada'), (metlo) => {
  test('Metlo supports different types of API keys for different purposes:- GENERIC: General-purpose API access', async () => {
    const instance = metlo.newOrganization();
    const { key, credential } = await instance.create({ name: 'general' });
    // A type that is not stated means general purpose.
    expect(key.type).toBe('GENERIC');
    expect((await metlo.verify(credential)).key?.type).toBe('GENERIC');
  });

  test('ONBOARDING: Used for initial setup and onboarding', async () => {
    const { credential } = await metlo.newOrganization().create({ name: 'setup', type: 'ONBOARDING' });
    expect((await metlo.verify(credential)).key?.type).toBe('ONBOARDING');
  });

  test('GCP: Integration with Google Cloud Platform', async () => {
    const { credential } = await metlo.newOrganization().create({ name: 'cloud', type: 'GCP' });
    expect((await metlo.verify(credential)).key?.type).toBe('GCP');
  });

  test('AWS: Integration with Amazon Web Services', async () => {
    const { credential } = await metlo.newOrganization().create({ name: 'cloud', type: 'AWS' });
    expect((await metlo.verify(credential)).key?.type).toBe('AWS');
  });

  test('Unique name for your API key', async () => {
    const instance = metlo.newOrganization();
    const names = ['ci', 'CI', 'reports'];
    for (const name of names) await instance.create({ name });
    await expectRefused(instance.create({ name: 'CI' }), 'NAME_TAKEN', 'ALREADY_EXISTS');
    expect((await instance.list()).map(({ name }) => name)).toEqual(names.reverse());
    // Another instance has names of its own.
    await metlo.newOrganization().create({ name: 'ci' });
  });

  test('Type of API key: GENERIC, ONBOARDING, GCP, or AWS', async () => {
    const instance = metlo.newOrganization();
    for (const type of TYPES) expect((await instance.create({ name: type, type })).key.type).toBe(type);
  });

  test('The full API key. Save this securely - it won’t be shown again!', async () => {
    const instance = metlo.newOrganization();
    const { key, credential } = await instance.create({ name: 'ci', requestId: 'once' });
    const secret = secretOf(credential);
    expect(secret).toMatch(/^metlo_[0-9A-Za-z]{22,}$/);
    const again = await instance.answerToCreate({ name: 'ci', requestId: 'once' });
    expect(again.replayed).toBe(true);
    expect(again.credential).toBeUndefined();
    for (const seen of [key, again, await instance.list(), await instance.auditLog()]) expectWithout(seen, secret);
  });

  test('The name you assigned to the key', async () => {
    expect((await metlo.newOrganization().create({ name: 'ci' })).key.name).toBe('ci');
  });

  test('A public identifier in the format metlo.<key_identifier>', async () => {
    const { key } = await metlo.newOrganization().create({ name: 'ci' });
    expect(key.publicId).toBe(`metlo.${key.keyId.slice('key_'.length)}`);
  });

  test('ISO 8601 timestamp of when the key was created', async () => {
    const instance = metlo.newOrganization();
    const before = Date.now();
    const { key } = await instance.create({ name: 'ci' });
    const after = Date.now();
    const ms = toMs(key.createTime);
    expect(ms).toBeGreaterThanOrEqual(before);
    expect(ms).toBeLessThanOrEqual(after);
    const [event] = await instance.auditLog();
    expect(event?.time).toBe(new Date(ms).toISOString());
  });

  test('The type of API key', async () => {
    const instance = metlo.newOrganization();
    await instance.create({ name: 'cloud', type: 'AWS' });
    expect((await instance.list()).map(({ type }) => type)).toEqual(['AWS']);
  });

  test('Include your API key in theAuthorization header of every request:', async () => {
    const { key, credential } = await metlo.newOrganization().create({ name: 'ci' });
    const token = secretOf(credential);
    for (const value of [token, `Bearer ${token}`, `bearer  ${token}`]) {
      expectLetIn(await metlo.get([`Authorization: ${value}`]), key);
    }
    for (const lines of [[], [`X-API-Key: ${token}`], [`Authorization: Basic ${token}`]]) {
      expect((await metlo.get(lines)).status).toBe(401);
    }
  });

  test('Metlo hashes the API key from your Authorization header', async () => {
    const instance = metlo.newOrganization();
    const { key, credential } = await instance.create({ name: 'ci' });
    // What is stored is the hash: whoever comes with it meets the same key.
    const secret = { $case: 'digest', value: sha256(secretOf(credential)) } as const;
    const { results } = await instance.import([ImportKeysItem.fromPartial({ secret, name: 'by its hash' })]);
    expect(results).toMatchObject([{ alreadyImported: true, result: { $case: 'key', value: { keyId: key.keyId } } }]);
    expect(await metlo.verify(credential)).toMatchObject({ decision: Decision.VALID, key: { keyId: key.keyId } });
  });

  test('Checks if the hashed key exists in the database (with 5-second Redis caching)', async () => {
    const { credential } = await metlo.newOrganization().create({ name: 'ci' });
    expect(await metlo.verify(credential)).toMatchObject({
      decision: Decision.VALID,
      cacheTtl: { seconds: 5n, nanos: 0 },
    });
    const unknown = await metlo.verify(bearer(neverIssued('metlo_')));
    expect(unknown.decision).toBe(Decision.NOT_FOUND);
    expect(unknown.key).toBeUndefined();
    expect(unknown.cacheTtl).toBeUndefined();
  });

  test('If valid, processes your request', async () => {
    const { credential } = await metlo.newOrganization().create({ name: 'ci' });
    expect(await metlo.decisionOn(credential)).toBe(Decision.VALID);
  });

  test('If invalid, returns 401 Unauthorized', async () => {
    const { credential } = await metlo.newOrganization().create({ name: 'ci' });
    for (const token of [neverIssued('metlo_'), `${secretOf(credential)}a`, 'nonsense']) {
      for (const value of [token, `Bearer ${token}`]) {
        expectTurnedDown(await metlo.get([`Authorization: ${value}`]), 401, UNAUTHORIZED);
      }
    }
  });

  test('Retrieve all API keys for your instance:', async () => {
    const instance = metlo.newOrganization();
    for (const type of TYPES) await instance.create({ name: type, type });
    await metlo.newOrganization().create({ name: 'elsewhere' });
    expect((await instance.list()).map(({ name }) => name).sort()).toEqual([...TYPES].sort());
  });

  test('The list endpoint returns key metadata only. The actual API key values are never retrievable after creation.', async () => {
    const instance = metlo.newOrganization();
    const issued = await instance.create({ name: 'ci' });
    expect(await instance.list()).toEqual([issued.key]);
    await expectNeverToldAgain(metlo, instance, issued);
  });

  test('Retrieve keys specifically for onboarding purposes:', async () => {
    const instance = metlo.newOrganization();
    for (const type of TYPES) await instance.create({ name: type, type });
    expect((await instance.list({ types: ['ONBOARDING'] })).map(({ name }) => name)).toEqual(['ONBOARDING']);
  });

  test('Remove an API key by its name:', async () => {
    const instance = metlo.newOrganization();
    const { credential } = await instance.create({ name: 'ci' });
    const { credential: other } = await instance.create({ name: 'reports' });
    const { key } = await instance.revoke({ $case: 'name', value: 'ci' });
    expect(key).toMatchObject({ name: 'ci', state: KeyState.REVOKED });
    expect(await metlo.decisionOn(credential)).toBe(Decision.REVOKED);
    expect(await metlo.decisionOn(other)).toBe(Decision.VALID);
    expect((await instance.list()).map(({ name }) => name)).toEqual(['reports']);
    await expectRefused(instance.revoke({ $case: 'name', value: 'nobody' }), 'KEY_NOT_FOUND', 'NOT_FOUND');
    // In the middle of a rotation both keys of the name end.
    const old = await instance.create({ name: 'ci' });
    const fresh = await instance.rotate(old.key);
    const both = await instance.revoke({ $case: 'name', value: 'ci' });
    expect(both).toMatchObject({ key: { keyId: fresh.key.keyId }, previousKey: { keyId: old.key.keyId } });
    for (const ended of [old, fresh]) expect(await metlo.decisionOn(ended.credential)).toBe(Decision.REVOKED);
    expect((await instance.list()).map(({ name }) => name)).toEqual(['reports']);
  });

  test('Your Metlo instance has a maximum limit on the number of API keys you can create.', async () => {
    const instance = metlo.newOrganization();
    // At once: the limit holds under a race, too.
    const answers = await Promise.allSettled(
      Array.from({ length: 110 }, (_, n) => instance.create({ name: `key ${n}` })),
    );
    expect(answers.filter(({ status }) => status === 'fulfilled')).toHaveLength(100);
    expect(await instance.list({ pageSize: 500 })).toHaveLength(100);
  }, 120_000);

  test('If you reach this limit, you’ll receive an error:', async () => {
    const instance = metlo.newOrganization();
    await Promise.all(Array.from({ length: 100 }, (_, n) => instance.create({ name: `key ${n}` })));
    await expectRefused(instance.create({ name: 'one more' }), 'KEY_LIMIT_REACHED', 'RESOURCE_EXHAUSTED');
    await instance.revoke({ $case: 'name', value: 'key 7' });
    await instance.create({ name: 'one more' });
  }, 120_000);

  test('Create new API keys and delete old ones periodically to minimize risk if a key is compromised.', async () => {
    const instance = metlo.newOrganization();
    const old = await instance.create({ name: 'ci' });
    // The new key takes over the name, which stays unique.
    const fresh = await instance.rotate(old.key);
    expect(fresh.key).toMatchObject({ name: 'ci', lineageId: old.key.lineageId, rotatedFrom: old.key.keyId });
    for (const { credential } of [old, fresh]) expect(await metlo.decisionOn(credential)).toBe(Decision.VALID);
    await instance.revokeById(old.key);
    expect(await metlo.decisionOn(old.credential)).toBe(Decision.REVOKED);
    expect(await metlo.decisionOn(fresh.credential)).toBe(Decision.VALID);
  });

  test('Create keys with specific purposes (e.g., separate keys for different integrations) to make rotation easier.', async () => {
    const instance = metlo.newOrganization();
    const aws = await instance.create({ name: 'aws', type: 'AWS' });
    const gcp = await instance.create({ name: 'gcp', type: 'GCP' });
    const fresh = await instance.rotate(aws.key, { overlap: { seconds: 0n, nanos: 0 } });
    expect(fresh.key.type).toBe('AWS');
    expect(await metlo.decisionOn(aws.credential)).toBe(Decision.REVOKED);
    expect(await metlo.decisionOn(fresh.credential)).toBe(Decision.VALID);
    expect(await metlo.decisionOn(gcp.credential)).toBe(Decision.VALID);
  });

  test('Regularly audit and remove API keys that are no longer needed.', async () => {
    const instance = metlo.newOrganization();
    const used = await instance.create({ name: 'used' });
    await instance.create({ name: 'unused' });
    await metlo.verify(used.credential);
    const unused = async () =>
      (await instance.list()).filter(({ lastUseTime }) => !lastUseTime).map(({ name }) => name);
    await expect.poll(unused).toEqual(['unused']);
    for (const name of await unused()) await instance.revoke({ $case: 'name', value: name });
    expect((await instance.list()).map(({ name }) => name)).toEqual(['used']);
  });

  test('401 Unauthorized Returned when:', async () => {
    const instance = metlo.newOrganization();
    const { key, credential } = await instance.create({ name: 'ci' });
    const deleted = [`Authorization: ${secretOf(credential)}`];
    expectLetIn(await metlo.get(deleted), key);
    await instance.revoke({ $case: 'name', value: 'ci' });
    for (const lines of [[], [`Authorization: ${neverIssued('metlo_')}`], deleted]) {
      const response = await metlo.get(lines);
      expectTurnedDown(response, 401, UNAUTHORIZED);
      expect(response.headers['www-authenticate']).toMatch(/^Bearer realm="metlo"/);
    }
  });

  test('No API key is provided', async () => {
    expect(await metlo.decisionOn(undefined)).toBe(Decision.MALFORMED);
    expect(await metlo.decisionOn(bearer(''))).toBe(Decision.MALFORMED);
  });

  test('The API key is invalid', async () => {
    const secret = secretOf((await metlo.newOrganization().create({ name: 'ci' })).credential);
    const misspelt = `${secret.slice(0, -1)}${secret.endsWith('0') ? '1' : '0'}`;
    for (const token of ['metlo_', 'nonsense', misspelt, secret.toUpperCase()]) {
      expect(await metlo.decisionOn(bearer(token))).toBe(Decision.MALFORMED);
    }
    expect(await metlo.decisionOn(bearer(neverIssued('metlo_')))).toBe(Decision.NOT_FOUND);
  });

  test('The API key has been deleted', async () => {
    const instance = metlo.newOrganization();
    const { credential } = await instance.create({ name: 'ci' });
    const { enforcement } = await instance.revoke({ $case: 'name', value: 'ci' });
    const answeredAt = Date.now();
    expect(enforcement?.complete).toBe(true);
    expect(toMs(enforcement?.cachesClearTime)).toBeLessThanOrEqual(answeredAt + 5000);
    expect(await metlo.decisionOn(credential)).toBe(Decision.REVOKED);
  });

  test('Duplicate name', async () => {
    const instance = metlo.newOrganization();
    await instance.create({ name: 'ci' });
    for (const name of ['ci', ' ci ']) {
      await expectRefused(instance.create({ name }), 'NAME_TAKEN', 'ALREADY_EXISTS');
    }
    const answers = await Promise.allSettled(Array.from({ length: 5 }, () => instance.create({ name: 'raced' })));
    expect(answers.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
    expect(await instance.list()).toHaveLength(2);
  });

  test('Missing name', async () => {
    const instance = metlo.newOrganization();
    await expectRefused(instance.create(), 'NAME_REQUIRED', 'INVALID_ARGUMENT');
    await expectRefused(instance.create({ name: '  ' }), 'NAME_INVALID', 'INVALID_ARGUMENT');
    expect(await instance.list()).toEqual([]);
  });

  test('Invalid key type', async () => {
    const instance = metlo.newOrganization();
    for (const type of ['AZURE', 'generic']) {
      await expectRefused(instance.create({ name: 'ci', type }), 'TYPE_INVALID', 'INVALID_ARGUMENT');
    }
    expect(await instance.list()).toEqual([]);
  });
});
