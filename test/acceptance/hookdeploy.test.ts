import { expect, test } from 'vitest';

import { KeyState } from '../../src/gen/keyreeve/v1/key.js';
import { Decision } from '../../src/gen/keyreeve/v1/verification.js';
import {
  aUser,
  bearer,
  describeProduct,
  expectRefused,
  expectWithout,
  type Issued,
  type Product,
  secretOf,
  sha256,
} from '../support/product.js';

/** As the documentation shows it. */
const SAMPLE = 'hd_live_a1b2c3d4e5f6g7h8i9j0k1l2m3n4o5p6';

describeProduct('hookdeploy', aUser('ada', 'api_keys.manage'), (hookdeploy) => {
  test('Requires the api_keys.manage permission (super admin and admin).', async () => {
    const organization = hookdeploy.newOrganization();
    const { key, credential } = await organization.create({ name: 'CI pipeline' });
    for (const actor of [aUser('bob'), aUser('bob', 'api_keys.read', 'admin')]) {
      await expectRefused(organization.create({ name: 'mine', actor }), 'ACTOR_NOT_ALLOWED');
      await expectRefused(organization.rotate(key, { actor }), 'ACTOR_NOT_ALLOWED');
      await expectRefused(organization.revokeById(key, { actor }), 'ACTOR_NOT_ALLOWED');
    }
    expect(await hookdeploy.decisionOn(credential)).toBe(Decision.VALID);
    expect(await organization.list()).toHaveLength(1);
  });

  test('Enter a name (e.g. CI pipeline, Local dev)', async () => {
    const organization = hookdeploy.newOrganization();
    for (const name of ['CI pipeline', 'Local dev']) expect((await organization.create({ name })).key.name).toBe(name);
    await expectRefused(organization.create(), 'NAME_REQUIRED');
  });

  test('The full key is displayed once:', async () => {
    const organization = hookdeploy.newOrganization();
    const { credential } = await organization.create({ name: 'CI pipeline', requestId: 'once' });
    expect(secretOf(credential)).toMatch(/^hd_live_[0-9A-Za-z]{32}$/);
    const again = await organization.answerToCreate({ name: 'CI pipeline', requestId: 'once' });
    expect(again.replayed).toBe(true);
    expect(again.credential).toBeUndefined();
    expectWithout(again, secretOf(credential));
  });

  test('After you close the dialog, only the prefix (hd_live_a1b2...) is visible.', async () => {
    const organization = hookdeploy.newOrganization();
    const { credential } = await organization.create({ name: 'CI pipeline' });
    const [listed] = await organization.list();
    expect(listed?.display).toBe(`${secretOf(credential).slice(0, 'hd_live_a1b2'.length)}...`);
  });

  test('The full key cannot be recovered.', async () => {
    const organization = hookdeploy.newOrganization();
    const { key, credential } = await organization.create({ name: 'CI pipeline' });
    const seen = [key, await organization.list(), await hookdeploy.verify(credential), await organization.auditLog()];
    for (const message of seen) expectWithout(message, secretOf(credential));
  });

  test('API keys are stored as SHA-256 hashes in the database — never plaintext.', async () => {
    const organization = hookdeploy.newOrganization();
    // The key that the documentation shows, of which the service gets the hash alone, as the database held it.
    const item = importing({ secret: { $case: 'digest', value: sha256(SAMPLE) }, name: 'from before' });
    const { results } = await organization.import([item]);
    expect(results).toMatchObject([
      { alreadyImported: false, result: { $case: 'key', value: { name: 'from before' } } },
    ]);
    expect(await hookdeploy.verify(bearer(SAMPLE))).toMatchObject({
      decision: Decision.VALID,
      key: { name: 'from before', ...organization.ref },
    });
    expect(await hookdeploy.decisionOn(bearer(`${SAMPLE.slice(0, -1)}7`))).toBe(Decision.NOT_FOUND);
  });

  test('HookDeploy generates a random key with prefix hd_live_', async () => {
    const organization = hookdeploy.newOrganization();
    const issued = await Promise.all(Array.from({ length: 20 }, (_, n) => organization.create({ name: `key ${n}` })));
    const secrets = issued.map(({ credential }) => secretOf(credential));
    expect(secrets.every((secret) => secret.startsWith('hd_live_'))).toBe(true);
    expect(new Set(secrets.map((secret) => secret.slice(8, 18))).size).toBe(20);
  });

  test('Stores only the hash and a display prefix', async () => {
    const organization = hookdeploy.newOrganization();
    const token = 'hd_live_zzzz0123456789abcdefghijklmnopqr';
    const display = 'hd_live_zzzz...';
    await organization.import([
      importing({ secret: { $case: 'credential', value: bearer(token) }, name: 'with the key' }),
      importing({
        secret: { $case: 'digest', value: sha256(`${SAMPLE.slice(0, -1)}9`) },
        name: 'with its hash',
        display,
      }),
    ]);
    const listed = await organization.list();
    expect(listed.map((key) => key.display)).toEqual([display, display]);
    expectWithout(listed, token);
    expect(await hookdeploy.decisionOn(bearer(token))).toBe(Decision.VALID);
  });

  test('Revoke individually without affecting others.', async () => {
    const organization = hookdeploy.newOrganization();
    const issued: Issued[] = [];
    for (const name of ['CI', 'local dev', 'production automation']) issued.push(await organization.create({ name }));
    const [ci, ...others] = issued;
    if (ci) await organization.revokeById(ci.key);
    expect(await hookdeploy.decisionOn(ci?.credential)).toBe(Decision.REVOKED);
    for (const { credential } of others) expect(await hookdeploy.decisionOn(credential)).toBe(Decision.VALID);
  });

  test('Set expiration dates when creating keys for temporary access (e.g. contractor access for 30 days).', async () => {
    const organization = hookdeploy.newOrganization();
    const ttl = { seconds: 30n * 86_400n, nanos: 0 };
    const { key, credential } = await organization.create({
      name: 'contractor',
      expiration: { $case: 'ttl', value: ttl },
    });
    expect(Number(key.expireTime?.seconds) - Number(key.createTime?.seconds)).toBe(30 * 86_400);
    expect(await hookdeploy.decisionOn(credential)).toBe(Decision.VALID);
  });

  test('Expired keys return 401 unauthorized.', async () => {
    const ttl = { seconds: 1n, nanos: 0 };
    const { credential } = await hookdeploy
      .newOrganization()
      .create({ name: 'brief', expiration: { $case: 'ttl', value: ttl } });
    await expect.poll(() => hookdeploy.decisionOn(credential), { timeout: 10_000 }).toBe(Decision.EXPIRED);
  });

  test('Each key belongs to a single org.', async () => {
    const organization = hookdeploy.newOrganization();
    const { key, credential } = await organization.create({ name: 'CI pipeline' });
    const other = hookdeploy.newOrganization();
    expect(await other.list()).toEqual([]);
    await expectRefused(other.revokeById(key), 'KEY_NOT_FOUND');
    const digest = sha256(secretOf(credential));
    const { results } = await other.import([importing({ secret: { $case: 'digest', value: digest }, name: 'stolen' })]);
    expect(results).toMatchObject([{ result: { $case: 'failure', value: { reason: 'DIGEST_TAKEN' } } }]);
  });

  test('All API operations are scoped to that org’s endpoints and requests.', async () => {
    const organization = hookdeploy.newOrganization();
    const { credential } = await organization.create({ name: 'CI pipeline' });
    expect((await hookdeploy.verify(credential)).key).toMatchObject(organization.ref);
    const { organizationId } = hookdeploy.newOrganization().ref;
    expect((await hookdeploy.verify(credential, { organizationId })).decision).toBe(Decision.WRONG_ORGANIZATION);
  });

  test('Revocation is immediate.', async () => {
    const organization = hookdeploy.newOrganization();
    const { key, credential } = await organization.create({ name: 'CI pipeline' });
    expect((await organization.revokeById(key)).enforcement?.complete).toBe(true);
    expect(await hookdeploy.decisionOn(credential)).toBe(Decision.REVOKED);
  });

  test('Any in-flight requests with the old key fail on the next auth check (cached for up to 30 seconds in KV).', async () => {
    const organization = hookdeploy.newOrganization();
    const { key, credential } = await organization.create({ name: 'CI pipeline' });
    // Better than that: a kept answer would escape the rate limit, so none may be kept at all.
    expect((await hookdeploy.verify(credential)).cacheTtl).toEqual({ seconds: 0n, nanos: 0 });
    const inFlight = Array.from({ length: 20 }, () => hookdeploy.decisionOn(credential));
    await organization.revokeById(key);
    expect(await hookdeploy.decisionOn(credential)).toBe(Decision.REVOKED);
    for (const decision of await Promise.all(inFlight)) expect([Decision.VALID, Decision.REVOKED]).toContain(decision);
  });

  test('Revoked keys cannot be un-revoked.', async () => {
    const organization = hookdeploy.newOrganization();
    const { key, credential } = await organization.create({ name: 'CI pipeline' });
    await organization.revokeById(key);
    const selector = { $case: 'keyId', value: key.keyId } as const;
    await expectRefused(organization.update(selector, { key, updateMask: ['disabled'] }), 'KEY_REVOKED');
    const digest = sha256(secretOf(credential));
    const { results } = await organization.import([
      importing({ secret: { $case: 'digest', value: digest }, name: 'x' }),
    ]);
    expect(results).toMatchObject([{ alreadyImported: true, result: { value: { state: KeyState.REVOKED } } }]);
    expect(await hookdeploy.decisionOn(credential)).toBe(Decision.REVOKED);
  });

  test('Create a new key instead.', async () => {
    const organization = hookdeploy.newOrganization();
    const { key } = await organization.create({ name: 'CI pipeline' });
    await organization.revokeById(key);
    expect(await hookdeploy.decisionOn((await organization.create({ name: 'CI pipeline' })).credential)).toBe(
      Decision.VALID,
    );
  });

  test('To rotate without downtime:', async () => {
    const organization = hookdeploy.newOrganization();
    const old = await organization.create({ name: 'CI pipeline' });
    const fresh = await organization.rotate(old.key);
    expect(await hookdeploy.decisionOn(old.credential)).toBe(Decision.VALID);
    expect(await hookdeploy.decisionOn(fresh.credential)).toBe(Decision.VALID);
    await organization.revokeById(old.key);
    expect(await hookdeploy.decisionOn(old.credential)).toBe(Decision.REVOKED);
    expect(await hookdeploy.decisionOn(fresh.credential)).toBe(Decision.VALID);
  });

  test('There is no grace period — old and new keys work simultaneously until you revoke the old one.', async () => {
    const organization = hookdeploy.newOrganization();
    const old = await organization.create({ name: 'CI pipeline' });
    const { previousKey, ...fresh } = await organization.rotate(old.key);
    expect(previousKey).toMatchObject({ state: KeyState.ACTIVE, supersededBy: fresh.key.keyId });
    expect(previousKey?.expireTime).toBeUndefined();
    for (const { credential } of [old, fresh, old, fresh]) {
      expect(await hookdeploy.decisionOn(credential)).toBe(Decision.VALID);
    }
  });

  test.each([
    { name: 'Free60', plan: undefined, limit: 60 },
    { name: 'Starter120', plan: 'starter', limit: 120 },
    { name: 'Team300', plan: 'team', limit: 300 },
    { name: 'Enterprise1000', plan: 'enterprise', limit: 1000 },
  ])(
    '$name',
    async ({ plan, limit }) => {
      const organization = hookdeploy.newOrganization();
      if (plan) await organization.setPlan(plan);
      const { credential } = await organization.create({ name: 'CI pipeline' });
      const { admitted, denied } = await demand(hookdeploy, credential, limit + 30);
      expect(admitted).toHaveLength(limit);
      expect(denied).toHaveLength(30);
      for (const { rateLimit } of denied) {
        expect(rateLimit).toMatchObject({ limit, remaining: 0, window: { seconds: 60n, nanos: 0 } });
        const retryMs = Number(rateLimit?.retryAfter?.seconds) * 1000 + Number(rateLimit?.retryAfter?.nanos) / 1e6;
        expect(retryMs).toBeGreaterThan(0);
        expect(retryMs).toBeLessThanOrEqual(60_000);
      }
    },
    120_000,
  );

  test('Each API key inherits rate limits from the organization’s plan:', async () => {
    const organization = hookdeploy.newOrganization();
    const { credential } = await organization.create({ name: 'CI pipeline' });
    const { credential: other } = await organization.create({ name: 'Local dev' });
    expect((await demand(hookdeploy, credential, 70)).admitted).toHaveLength(60);
    // Each key has a budget of its own.
    expect(await hookdeploy.decisionOn(other)).toBe(Decision.VALID);
    expect(await hookdeploy.decisionOn(credential)).toBe(Decision.RATE_LIMITED);
    // A greater plan holds at once.
    await organization.setPlan('starter');
    const raised = await hookdeploy.verify(credential);
    expect(raised).toMatchObject({ decision: Decision.VALID, rateLimit: { limit: 120 } });
  });

  test('Rate limit headers are included in every response.', async () => {
    const organization = hookdeploy.newOrganization();
    const { key, credential } = await organization.create({ name: 'CI pipeline', scopes: ['read'] });
    const valid = await hookdeploy.verify(credential);
    expect(valid.rateLimit).toMatchObject({ limit: 60, window: { seconds: 60n, nanos: 0 } });
    expect(valid.rateLimit?.remaining).toBeLessThanOrEqual(59);
    expect(valid.rateLimit?.resetTime).toBeDefined();
    expect(valid.rateLimit?.retryAfter).toBeUndefined();
    const scoped = await hookdeploy.verify(credential, { requiredScopes: ['write'] });
    expect(scoped).toMatchObject({ decision: Decision.INSUFFICIENT_SCOPE, rateLimit: { limit: 60 } });
    await organization.revokeById(key);
    expect(await hookdeploy.verify(credential)).toMatchObject({
      decision: Decision.REVOKED,
      rateLimit: { limit: 60 },
    });
  });

  test('API key creation and revocation are recorded in the audit log.', async () => {
    const organization = hookdeploy.newOrganization();
    const { key } = await organization.create({ name: 'CI pipeline' });
    await organization.revokeById(key);
    expect((await organization.auditLog()).map(({ type }) => type)).toEqual([
      'keyreeve.key.created',
      'keyreeve.key.revoked',
    ]);
  });

  test('Each entry includes the actor, key name, and timestamp.', async () => {
    const organization = hookdeploy.newOrganization();
    const { key } = await organization.create({ name: 'CI pipeline' });
    await organization.revokeById(key, { actor: aUser('grace', 'api_keys.manage') });
    const entries = await organization.auditLog();
    expect(entries).toMatchObject([
      { data: { actor: { type: 'USER', id: 'ada' }, key: { name: 'CI pipeline' } } },
      { data: { actor: { type: 'USER', id: 'grace' }, key: { name: 'CI pipeline' } } },
    ]);
    for (const { time } of entries) expect(time).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
  });
});

/** So many verifications, some at a time, all of them answered. */
async function demand(product: Product, credential: Issued['credential'], count: number) {
  const answers: Awaited<ReturnType<Product['verify']>>[] = [];
  let asked = 0;
  const client = async () => {
    while (asked < count) {
      asked += 1;
      answers.push(await product.verify(credential));
    }
  };
  await Promise.all(Array.from({ length: 20 }, client));
  const admitted = answers.filter(({ decision }) => decision === Decision.VALID);
  const denied = answers.filter(({ decision }) => decision === Decision.RATE_LIMITED);
  expect(admitted.length + denied.length).toBe(count);
  return { admitted, denied };
}

function importing(fields: Partial<ImportItem>): ImportItem {
  return {
    secret: undefined,
    clientId: '',
    name: '',
    type: '',
    display: '',
    scopes: [],
    labels: new Map(),
    createTime: undefined,
    expireTime: undefined,
    lastUseTime: undefined,
    disabled: false,
    ...fields,
  };
}

type ImportItem = Parameters<ReturnType<Product['newOrganization']>['import']>[0][number];
