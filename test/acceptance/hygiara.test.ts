import { expect, test } from 'vitest';

import { Key, KeyState } from '../../src/gen/keyreeve/v1/key.js';
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
  reach,
  secretOf,
  sha256,
  toMs,
} from '../support/product.js';

const inSeconds = (seconds: number) => ({ $case: 'ttl' as const, value: { seconds: BigInt(seconds), nanos: 0 } });
/** Long enough for a few calls. */
const BRIEF = inSeconds(6);

describeProduct('hygiara', aUser('ada'), (hygiara) => {
  test('How to create, manage, and revoke API keys for programmatic access to Hygiara.', async () => {
    const organization = hygiara.newOrganization();
    const { key, credential } = await organization.create({ name: 'CI pipeline' });
    expect(await hygiara.decisionOn(credential)).toBe(Decision.VALID);
    const selector = { $case: 'keyId', value: key.keyId } as const;
    await organization.update(selector, { key: Key.create({ name: 'Reporting script' }), updateMask: ['name'] });
    expect((await organization.list()).map(({ keyId, name }) => [keyId, name])).toEqual([
      [key.keyId, 'Reporting script'],
    ]);
    await organization.revoke(selector);
    expect(await hygiara.decisionOn(credential)).toBe(Decision.REVOKED);
    expect(await organization.list()).toEqual([]);
  });

  test('This page explains how to create and manage API keys so you can authenticate against the Hygiara REST API from scripts, pipelines, or other tools.', async () => {
    const organization = hygiara.newOrganization();
    const { key, credential } = await organization.create({ name: 'pipeline' });
    expect(await hygiara.verify(credential)).toMatchObject({
      decision: Decision.VALID,
      key: { keyId: key.keyId, ...organization.ref },
    });
    const nobody = { key: undefined, rateLimit: undefined, cacheTtl: undefined };
    const unknown = bearer(neverIssued('hrdly_'));
    expect(await hygiara.verify(unknown)).toEqual({ decision: Decision.NOT_FOUND, ...nobody });
    const bad = bearer(`${secretOf(credential).slice(0, -1)}?`);
    for (const presented of [undefined, bearer(''), bad]) {
      expect(await hygiara.verify(presented)).toEqual({ decision: Decision.MALFORMED, ...nobody });
    }
  });

  test('you need a service account style access path that does not depend on a user session', async () => {
    const { key, credential } = await hygiara.newOrganization().create({ name: 'CI pipeline' });
    expect(await hygiara.verify(credential)).toMatchObject({
      decision: Decision.VALID,
      key: { keyId: key.keyId, name: 'CI pipeline' },
    });
  });

  test('Give it a name that identifies its purpose (for example: "CI pipeline" or "Reporting script").', async () => {
    const organization = hygiara.newOrganization();
    for (const name of ['CI pipeline', 'Reporting script']) await organization.create({ name });
    expect((await organization.list()).map(({ name }) => name)).toEqual(['Reporting script', 'CI pipeline']);
    await expectRefused(organization.create(), 'NAME_REQUIRED', 'INVALID_ARGUMENT');
    await expectRefused(organization.create({ name: '  ' }), 'NAME_INVALID', 'INVALID_ARGUMENT');
  });

  test('Optionally set an expiry date.', async () => {
    const organization = hygiara.newOrganization();
    const { key: endless } = await organization.create({ name: 'endless' });
    expect(endless.expireTime).toBeUndefined();
    const expireTime = { seconds: BigInt(Math.floor(Date.now() / 1000) + 3600), nanos: 0 };
    const { key, credential } = await organization.create({
      name: 'for an hour',
      expiration: { $case: 'expireTime', value: expireTime },
    });
    expect(key.expireTime).toEqual(expireTime);
    expect((await hygiara.verify(credential)).key?.expireTime).toEqual(expireTime);
  });

  test('Important: The full API key value is only shown once, immediately after creation.', async () => {
    const organization = hygiara.newOrganization();
    const { key, credential } = await organization.create({ name: 'CI pipeline', requestId: 'once' });
    const again = await organization.answerToCreate({ name: 'CI pipeline', requestId: 'once' });
    expect(again).toMatchObject({ replayed: true, key: { keyId: key.keyId } });
    expect(again.credential).toBeUndefined();
    expectWithout(again, secretOf(credential));
  });

  test('You will not be able to retrieve it again.', async () => {
    const organization = hygiara.newOrganization();
    await expectNeverToldAgain(hygiara, organization, await organization.create({ name: 'CI pipeline' }));
  });

  test('API keys are prefixed with hrdly_ so they are easy to identify if they appear in logs or config.', async () => {
    const { credential } = await hygiara.newOrganization().create({ name: 'CI pipeline' });
    expect(secretOf(credential)).toMatch(/^hrdly_[0-9A-Za-z]{22,}$/);
  });

  test('Include the key in the X-API-Key header of your API requests:', async () => {
    const { key, credential } = await hygiara.newOrganization().create({ name: 'CI pipeline' });
    const token = secretOf(credential);
    expectLetIn(await hygiara.get([`X-API-Key: ${token}`]), key);
    for (const lines of [
      [],
      [`X-API-Key: Bearer ${token}`],
      [`Authorization: Bearer ${token}`],
      [`X-API-Key: ${neverIssued('hrdly_')}`],
    ]) {
      expectTurnedDown(await hygiara.get(lines), 401, '{"error":"unauthorized"}');
    }
  });

  test('the key name', async () => {
    const organization = hygiara.newOrganization();
    await organization.create({ name: 'CI pipeline' });
    expect((await organization.list()).map(({ name }) => name)).toEqual(['CI pipeline']);
  });

  test('the key prefix (for identification)', async () => {
    const organization = hygiara.newOrganization();
    const { credential } = await organization.create({ name: 'CI pipeline' });
    const [listed] = await organization.list();
    expect(listed?.display).toBe(`${secretOf(credential).slice(0, 'hrdly_'.length + 4)}...`);
  });

  test('the last time the key was used', async () => {
    const organization = hygiara.newOrganization();
    const { credential } = await organization.create({ name: 'CI pipeline' });
    const lastUse = async () => (await organization.list())[0]?.lastUseTime;
    expect(await lastUse()).toBeUndefined();
    let earlier: Key['lastUseTime'];
    for (let use = 0; use < 2; use += 1) {
      const beforeMs = Date.now();
      await hygiara.verify(credential);
      const afterMs = Date.now();
      await expect.poll(lastUse).not.toEqual(earlier);
      earlier = await lastUse();
      expect(toMs(earlier)).toBeGreaterThanOrEqual(beforeMs);
      expect(toMs(earlier)).toBeLessThanOrEqual(afterMs);
    }
  });

  test('the expiry date (if set)', async () => {
    const organization = hygiara.newOrganization();
    const { key } = await organization.create({ name: 'for a day', expiration: inSeconds(86_400) });
    await organization.create({ name: 'endless' });
    expect((await organization.list()).map(({ expireTime }) => expireTime)).toEqual([undefined, key.expireTime]);
    expect(key.expireTime).toBeDefined();
  });

  test('whether the key is expired', async () => {
    const organization = hygiara.newOrganization();
    const { key, credential } = await organization.create({ name: 'short', expiration: BRIEF });
    await organization.create({ name: 'long', expiration: inSeconds(86_400) });
    const states = async () => (await organization.list()).map(({ name, state }) => [name, state]);
    expect(await states()).toEqual([
      ['long', KeyState.ACTIVE],
      ['short', KeyState.ACTIVE],
    ]);
    expect(await hygiara.decisionOn(credential)).toBe(Decision.VALID);
    await reach(toMs(key.expireTime));
    expect(await states()).toEqual([
      ['long', KeyState.ACTIVE],
      ['short', KeyState.EXPIRED],
    ]);
    expect(await hygiara.decisionOn(credential)).toBe(Decision.EXPIRED);
    expect((await organization.list({ states: [KeyState.EXPIRED] })).map(({ name }) => name)).toEqual(['short']);
  });

  test('Use the actions menu to revoke a key immediately.', async () => {
    const organization = hygiara.newOrganization();
    const { key, credential } = await organization.create({ name: 'CI pipeline' });
    expect((await organization.revokeById(key)).enforcement?.complete).toBe(true);
    expect(await hygiara.decisionOn(credential)).toBe(Decision.REVOKED);
  });

  test('Revoked keys cannot be used and cannot be reinstated.', async () => {
    const organization = hygiara.newOrganization();
    const { key, credential } = await organization.create({ name: 'CI pipeline' });
    await organization.revokeById(key);
    const selector = { $case: 'keyId', value: key.keyId } as const;
    for (const [updateMask, fields] of [
      [['disabled'], { disabled: false }],
      [['expire_time'], {}],
      [['name'], { name: 'again' }],
    ] as const) {
      const changed = { ...key, ...fields };
      const update = organization.update(selector, { key: changed, updateMask: [...updateMask] });
      await expectRefused(update, 'KEY_REVOKED', 'FAILED_PRECONDITION');
    }
    await expectRefused(organization.rotate(key), 'KEY_REVOKED', 'FAILED_PRECONDITION');
    const digest = sha256(secretOf(credential));
    const again = ImportKeysItem.fromPartial({ secret: { $case: 'digest', value: digest }, name: 'again' });
    expect((await organization.import([again])).results).toMatchObject([
      { alreadyImported: true, result: { value: { keyId: key.keyId, state: KeyState.REVOKED } } },
    ]);
    expect(await hygiara.decisionOn(credential)).toBe(Decision.REVOKED);
  });

  test('A revoked key stops working immediately. There is no grace period.', async () => {
    const organization = hygiara.newOrganization();
    const { key, credential } = await organization.create({ name: 'CI pipeline' });
    // No answer may be kept, so none outlives the revocation.
    expect((await hygiara.verify(credential)).cacheTtl).toEqual({ seconds: 0n, nanos: 0 });
    const { key: revoked, enforcement } = await organization.revokeById(key);
    expect(enforcement?.complete).toBe(true);
    expect(revoked?.state).toBe(KeyState.REVOKED);
    for (let n = 0; n < 5; n += 1) expect(await hygiara.decisionOn(credential)).toBe(Decision.REVOKED);
  });

  test('If you lose a key, revoke the old one and create a new one.', async () => {
    const organization = hygiara.newOrganization();
    const lost = await organization.create({ name: 'CI pipeline' });
    await organization.revokeById(lost.key);
    const { credential } = await organization.create({ name: 'CI pipeline' });
    expect(await hygiara.decisionOn(lost.credential)).toBe(Decision.REVOKED);
    expect(await hygiara.decisionOn(credential)).toBe(Decision.VALID);
  });

  test('Not setting an expiry date on keys used in temporary scripts — revoke them manually when the work is done', async () => {
    const organization = hygiara.newOrganization();
    const { credential } = await organization.create({ name: 'temporary script' });
    await organization.revoke({ $case: 'name', value: 'temporary script' });
    expect(await hygiara.decisionOn(credential)).toBe(Decision.REVOKED);
    const other = await organization.create({ name: 'with an end', expiration: BRIEF });
    expect(await hygiara.decisionOn(other.credential)).toBe(Decision.VALID);
    await reach(toMs(other.key.expireTime));
    expect(await hygiara.decisionOn(other.credential)).toBe(Decision.EXPIRED);
  });

  test('Sharing a single key between multiple pipelines — use one key per pipeline so you can revoke them independently', async () => {
    const organization = hygiara.newOrganization();
    const one = await organization.create({ name: 'pipeline one' });
    const two = await organization.create({ name: 'pipeline two' });
    await organization.revokeById(one.key);
    expect(await hygiara.decisionOn(one.credential)).toBe(Decision.REVOKED);
    expect(await hygiara.decisionOn(two.credential)).toBe(Decision.VALID);
  });
});
