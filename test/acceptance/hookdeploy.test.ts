import { beforeAll, expect, test } from 'vitest';

import { Key, KeyState } from '../../src/gen/keyreeve/v1/key.js';
import { ImportKeysItem, type VerifyKeyResponse } from '../../src/gen/keyreeve/v1/key_service.js';
import { Decision } from '../../src/gen/keyreeve/v1/verification.js';
import type { HttpResponse } from '../support/gateway.js';
import {
  aUser,
  bearer,
  describeProduct,
  expectLetIn,
  expectMayNotManage,
  expectNeverToldAgain,
  expectRefused,
  expectTurnedDown,
  expectWithout,
  type Issued,
  keepVerifying,
  neverIssued,
  type Organization,
  type Product,
  reach,
  secretOf,
  sha256,
  toMs,
} from '../support/product.js';
import { expectLimitInHeaders } from '../support/rate-limit-headers.js';

const UNAUTHORIZED = '{"error":"unauthorized"}';
/** As the documentation shows it. */
const SAMPLE = 'hd_live_a1b2c3d4e5f6g7h8i9j0k1l2m3n4o5p6';

const MINUTE_MS = 60_000;
/** How near to a window's end it is still tried. */
const CLOSE_MS = 5000;
/** Long enough for a few calls, also where the machine stands still meanwhile. */
const BRIEF = { $case: 'ttl' as const, value: { seconds: 6n, nanos: 0 } };

const sentences = (hookdeploy: Product) => {
  // A minute goes by while the other tests run.
  let minute: Promise<Minute>;
  beforeAll(() => {
    minute = watchMinute(hookdeploy);
    // It is told of by the test that waits for it.
    minute.catch(() => undefined);
  });

  test('API keys authenticate requests to api.hookdeploy.dev. Create them in the dashboard, use them in scripts and CI, and rotate them regularly.', async () => {
    const organization = hookdeploy.newOrganization();
    const { key, credential } = await organization.create({ name: 'CI pipeline' });
    expect(await hookdeploy.verify(credential)).toMatchObject({
      decision: Decision.VALID,
      key: { keyId: key.keyId, name: 'CI pipeline', ...organization.ref },
    });
    const rotated = await organization.rotate(key);
    expect(await hookdeploy.verify(rotated.credential)).toMatchObject({
      decision: Decision.VALID,
      key: { keyId: rotated.key.keyId, name: 'CI pipeline', ...organization.ref },
    });
    const nobody = { key: undefined, rateLimit: undefined, cacheTtl: undefined };
    const unknown = bearer(neverIssued('hd_live_', 32));
    expect(await hookdeploy.verify(unknown)).toEqual({ decision: Decision.NOT_FOUND, ...nobody });
    const bad = bearer(`${secretOf(credential).slice(0, -1)}?`);
    for (const presented of [undefined, bearer(''), bad]) {
      expect(await hookdeploy.verify(presented)).toEqual({ decision: Decision.MALFORMED, ...nobody });
    }
  });

  test('Requires the api_keys.manage permission (super admin and admin).', async () => {
    const organization = hookdeploy.newOrganization();
    const { key, credential } = await organization.create({ name: 'CI pipeline' });
    for (const actor of [aUser('bob'), aUser('bob', 'api_keys.read', 'admin')]) {
      await expectMayNotManage(organization, key, actor);
    }
    // The plan is the same, too.
    expect(await hookdeploy.verify(credential)).toMatchObject({ decision: Decision.VALID, rateLimit: { limit: 60 } });
  });

  test('Enter a name (e.g. CI pipeline, Local dev)', async () => {
    const organization = hookdeploy.newOrganization();
    for (const name of ['CI pipeline', 'Local dev']) expect((await organization.create({ name })).key.name).toBe(name);
    await expectRefused(organization.create(), 'NAME_REQUIRED', 'INVALID_ARGUMENT');
    await expectRefused(organization.create({ name: '  ' }), 'NAME_INVALID', 'INVALID_ARGUMENT');
    expect(await organization.list()).toHaveLength(2);
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
    await expectNeverToldAgain(hookdeploy, organization, await organization.create({ name: 'CI pipeline' }));
  });

  test('Pass the key in every API request:', async () => {
    const { key, credential } = await hookdeploy.newOrganization().create({ name: 'CI pipeline' });
    expectLetIn(await hookdeploy.get([bearerLine(credential)], '/v1/endpoints'), key);
    expectLetIn(await hookdeploy.get([bearerLine(credential)], '/v1/usage'), key);
    for (const lines of [[], [`Authorization: ${secretOf(credential)}`]]) {
      expectTurnedDown(await hookdeploy.get(lines, '/v1/endpoints'), 401, UNAUTHORIZED);
    }
  });

  test('All routes require authentication, including /v1/health.', async () => {
    const { key, credential } = await hookdeploy.newOrganization().create({ name: 'CI pipeline' });
    for (const path of ['/v1/health', '/v1/endpoints', '/', '/v1/health?a=b', '/v1/../v1/health', '//v1//health']) {
      expectTurnedDown(await hookdeploy.get([], path), 401, UNAUTHORIZED);
      expectLetIn(await hookdeploy.get([bearerLine(credential)], path), key);
    }
  });

  test('API keys are stored as SHA-256 hashes in the database — never plaintext.', async () => {
    const organization = hookdeploy.newOrganization();
    // The key that the documentation shows, of which the service gets the hash alone, as the database held it.
    const { results } = await organization.import([digestOf(SAMPLE, 'from before')]);
    expect(results).toMatchObject([
      { alreadyImported: false, result: { $case: 'key', value: { name: 'from before' } } },
    ]);
    expect(await hookdeploy.verify(bearer(SAMPLE))).toMatchObject({
      decision: Decision.VALID,
      key: { name: 'from before', ...organization.ref },
    });
    expect(await hookdeploy.decisionOn(bearer(`${SAMPLE.slice(0, -1)}7`))).toBe(Decision.NOT_FOUND);
    // A key that was made here is known by its SHA-256, too.
    const { key, credential } = await organization.create({ name: 'CI pipeline' });
    expect(await organization.import([digestOf(secretOf(credential), 'again')])).toMatchObject({
      results: [{ alreadyImported: true, result: { $case: 'key', value: { keyId: key.keyId, name: 'CI pipeline' } } }],
    });
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
      ImportKeysItem.fromPartial({ secret: { $case: 'credential', value: bearer(token) }, name: 'with the key' }),
      { ...digestOf(`${SAMPLE.slice(0, -1)}9`, 'with its hash'), display },
    ]);
    const listed = await organization.list();
    expect(listed.map((key) => key.display)).toEqual([display, display]);
    expectWithout(listed, token);
    expect(await hookdeploy.decisionOn(bearer(token))).toBe(Decision.VALID);
    // The hash stands for the key that came with it.
    const { results } = await organization.import([digestOf(token, 'again')]);
    expect(results).toMatchObject([{ alreadyImported: true, result: { value: { name: 'with the key', display } } }]);
  });

  test('Use separate keys per environment. Create one key for CI, one for local dev, one for production automation.', async () => {
    const organization = hookdeploy.newOrganization();
    const issued: Issued[] = [];
    for (const name of ['CI', 'local dev', 'production automation']) issued.push(await organization.create({ name }));
    for (const { key, credential } of issued) {
      const { keyId, name } = key;
      expect(await hookdeploy.verify(credential)).toMatchObject({ decision: Decision.VALID, key: { keyId, name } });
    }
    expect(new Set(issued.map(({ key }) => key.name)).size).toBe(3);
    expect(new Set(issued.map(({ key }) => key.keyId)).size).toBe(3);
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
    const days = 30n * 86_400n;
    const { key: lasting, credential } = await organization.create({
      name: 'contractor',
      expiration: { $case: 'ttl', value: { seconds: days, nanos: 0 } },
    });
    expect(toMs(lasting.expireTime) - toMs(lasting.createTime)).toBe(Number(days) * 1000);
    const date = { seconds: BigInt(Math.floor(Date.now() / 1000)) + days, nanos: 0 };
    const dated = await organization.create({
      name: 'until a date',
      expiration: { $case: 'expireTime', value: date },
    });
    expect(dated.key.expireTime).toEqual(date);
    expect(await hookdeploy.verify(dated.credential)).toMatchObject({
      decision: Decision.VALID,
      key: { expireTime: date },
    });
    expect(await hookdeploy.verify(credential)).toMatchObject({
      decision: Decision.VALID,
      key: { expireTime: lasting.expireTime },
    });
  });

  test('Expired keys return 401 unauthorized.', async () => {
    await hookdeploy.openGateway();
    const { key, credential } = await hookdeploy.newOrganization().create({ name: 'brief', expiration: BRIEF });
    expect(await hookdeploy.decisionOn(credential)).toBe(Decision.VALID);
    expectLetIn(await hookdeploy.get([bearerLine(credential)]), key);
    await reach(toMs(key.expireTime));
    expect(await hookdeploy.decisionOn(credential)).toBe(Decision.EXPIRED);
    expectTurnedDown(await hookdeploy.get([bearerLine(credential)]), 401, UNAUTHORIZED);
  });

  test('Each key belongs to a single org.', async () => {
    const organization = hookdeploy.newOrganization();
    const { key, credential } = await organization.create({ name: 'CI pipeline' });
    const other = hookdeploy.newOrganization();
    expect(await other.list()).toEqual([]);
    await expectRefused(other.revokeById(key), 'KEY_NOT_FOUND', 'NOT_FOUND');
    await expectRefused(other.get(key), 'KEY_NOT_FOUND', 'NOT_FOUND');
    const { results } = await other.import([digestOf(secretOf(credential), 'stolen')]);
    expect(results).toMatchObject([{ result: { $case: 'failure', value: { reason: 'DIGEST_TAKEN' } } }]);
    expect(await hookdeploy.decisionOn(credential)).toBe(Decision.VALID);
  });

  test('All API operations are scoped to that org’s endpoints and requests.', async () => {
    const organization = hookdeploy.newOrganization();
    const { credential } = await organization.create({ name: 'CI pipeline' });
    expect((await hookdeploy.verify(credential)).key).toMatchObject(organization.ref);
    const { organizationId } = hookdeploy.newOrganization().ref;
    expect(await hookdeploy.verify(credential, { organizationId })).toEqual({
      decision: Decision.WRONG_ORGANIZATION,
      key: undefined,
      rateLimit: undefined,
      cacheTtl: undefined,
    });
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
    const { enforcement } = await organization.revokeById(key);
    expect(enforcement?.complete).toBe(true);
    expect(toMs(enforcement?.cachesClearTime)).toBeLessThanOrEqual(Date.now() + 30_000);
    expect(await hookdeploy.decisionOn(credential)).toBe(Decision.REVOKED);
    for (const decision of await Promise.all(inFlight)) expect([Decision.VALID, Decision.REVOKED]).toContain(decision);
  });

  test('Revoked keys cannot be un-revoked.', async () => {
    const organization = hookdeploy.newOrganization();
    const { key, credential } = await organization.create({ name: 'CI pipeline' });
    await organization.revokeById(key);
    const selector = { $case: 'keyId', value: key.keyId } as const;
    for (const field of ['disabled', 'expire_time', 'name']) {
      const update = organization.update(selector, { key: Key.create({ name: 'again' }), updateMask: [field] });
      await expectRefused(update, 'KEY_REVOKED', 'FAILED_PRECONDITION');
    }
    await expectRefused(organization.rotate(key), 'KEY_REVOKED', 'FAILED_PRECONDITION');
    const { results } = await organization.import([digestOf(secretOf(credential), 'again')]);
    expect(results).toMatchObject([
      { alreadyImported: true, result: { value: { keyId: key.keyId, state: KeyState.REVOKED } } },
    ]);
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
    const ways: Record<string, (organization: Organization, key: Key) => Promise<Issued>> = {
      'with a new key of the same name': (organization, { name }) => organization.create({ name }),
      'with RotateKey': (organization, key) => organization.rotate(key),
    };
    for (const [way, renew] of Object.entries(ways)) {
      const organization = hookdeploy.newOrganization();
      // Clients ask all the time, and no limit is to come between.
      await organization.setPlan('enterprise');
      const old = await organization.create({ name: 'CI pipeline' });
      const before = keepVerifying(hookdeploy, old.credential);
      const fresh = await renew(organization, old.key);
      const after = keepVerifying(hookdeploy, fresh.credential);
      expect(await hookdeploy.decisionOn(fresh.credential), way).toBe(Decision.VALID);
      // The last client has the new key.
      expect(new Set(await before.stop()), way).toEqual(new Set([Decision.VALID]));
      await organization.revokeById(old.key);
      expect(await hookdeploy.decisionOn(old.credential), way).toBe(Decision.REVOKED);
      expect(await hookdeploy.decisionOn(fresh.credential), way).toBe(Decision.VALID);
      expect(new Set(await after.stop()), way).toEqual(new Set([Decision.VALID]));
      expect((await organization.list()).map(({ keyId, name }) => ({ keyId, name }))).toEqual([
        { keyId: fresh.key.keyId, name: 'CI pipeline' },
      ]);
    }
  });

  test('Verify the new key works (GET /v1/health)', async () => {
    const organization = hookdeploy.newOrganization();
    const old = await organization.create({ name: 'CI pipeline' });
    const fresh = await organization.rotate(old.key);
    for (const { key, credential } of [old, fresh]) {
      expectLetIn(await hookdeploy.get([bearerLine(credential)], '/v1/health'), key);
    }
    await organization.revokeById(old.key);
    expectTurnedDown(await hookdeploy.get([bearerLine(old.credential)], '/v1/health'), 401, UNAUTHORIZED);
    expectLetIn(await hookdeploy.get([bearerLine(fresh.credential)], '/v1/health'), fresh.key);
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
    await organization.revokeById(old.key);
    for (let n = 0; n < 3; n += 1) {
      expect(await hookdeploy.decisionOn(old.credential)).toBe(Decision.REVOKED);
      expect(await hookdeploy.decisionOn(fresh.credential)).toBe(Decision.VALID);
    }
  });

  test.each([
    { name: 'Free60', plan: 'free', limit: 60 },
    { name: 'Starter120', plan: 'starter', limit: 120 },
    { name: 'Team300', plan: 'team', limit: 300 },
    { name: 'Enterprise1000', plan: 'enterprise', limit: 1000 },
  ])(
    '$name',
    async ({ plan, limit }) => {
      const organization = hookdeploy.newOrganization();
      await organization.setPlan(plan);
      const { credential } = await organization.create({ name: 'CI pipeline' });
      const beganMs = Date.now();
      const { admitted, denied } = await demand(hookdeploy, credential, limit + 30);
      expect(admitted).toHaveLength(limit);
      expect(denied).toHaveLength(30);
      for (const { rateLimit } of denied) expect(rateLimit).toMatchObject({ limit, remaining: 0 });
      expectMinuteTold([...admitted, ...denied], beganMs);
    },
    120_000,
  );

  test('Each API key inherits rate limits from the organization’s plan:', async () => {
    const organization = hookdeploy.newOrganization();
    const { credential } = await organization.create({ name: 'CI pipeline' });
    const { credential: other } = await organization.create({ name: 'Local dev' });
    expect((await demand(hookdeploy, credential, 70)).admitted).toHaveLength(60);
    // Each key has a budget of its own.
    expect(await hookdeploy.verify(other)).toMatchObject({ decision: Decision.VALID, rateLimit: { limit: 60 } });
    expect(await hookdeploy.decisionOn(credential)).toBe(Decision.RATE_LIMITED);
    // A greater plan holds at once: what it admits beyond the smaller one, and no more.
    await organization.setPlan('starter');
    const raised = await demand(hookdeploy, credential, 70);
    expect(raised.admitted).toHaveLength(60);
    for (const { rateLimit } of raised.denied) expect(rateLimit).toMatchObject({ limit: 120, remaining: 0 });
    expect((await demand(hookdeploy, other, 80)).admitted).toHaveLength(80);
    // So does a smaller one, for keys that there are and for new ones.
    await organization.setPlan('free');
    expect(await hookdeploy.verify(other)).toMatchObject({
      decision: Decision.RATE_LIMITED,
      rateLimit: { limit: 60, remaining: 0 },
    });
    const { credential: late } = await organization.create({ name: 'production automation' });
    expect((await demand(hookdeploy, late, 70)).admitted).toHaveLength(60);
  });

  test('Rate limit headers are included in every response.', async () => {
    const organization = hookdeploy.newOrganization();
    const { key, credential } = await organization.create({
      name: 'CI pipeline',
      scopes: ['read'],
      expiration: BRIEF,
    });
    const beganMs = Date.now();
    const valid = await ask(hookdeploy, credential);
    expect(valid).toMatchObject({ decision: Decision.VALID, rateLimit: { limit: 60 } });
    expectMinuteTold([valid], beganMs);
    expect(valid.rateLimit?.remaining).toBeGreaterThanOrEqual(0);
    expect(valid.rateLimit?.remaining).toBeLessThanOrEqual(59);

    // Each outranks the one before. None of them counts, so they all tell the same.
    const selector = { $case: 'keyId', value: key.keyId } as const;
    const disabled = { key: Key.create({ disabled: true }), updateMask: ['disabled'] };
    const denials: [Decision, () => Promise<unknown>][] = [
      [Decision.INSUFFICIENT_SCOPE, () => Promise.resolve()],
      [Decision.ORGANIZATION_SUSPENDED, () => organization.suspend()],
      [Decision.EXPIRED, () => reach(toMs(key.expireTime))],
      [Decision.DISABLED, () => organization.update(selector, disabled)],
      [Decision.REVOKED, () => organization.revoke(selector)],
    ];
    for (const [decision, deny] of denials) {
      await deny();
      const denied = await hookdeploy.verify(credential, { requiredScopes: ['write'] });
      expect(denied).toMatchObject({ decision, key: { keyId: key.keyId } });
      expect(denied.rateLimit).toEqual(valid.rateLimit);
    }

    // The gateway makes headers of it, in the place of what the upstream says of limits of its own.
    const limited = hookdeploy.newOrganization();
    const used = await limited.create({ name: 'CI pipeline' });
    const asked: HttpResponse[] = [];
    while (asked.length < 62) asked.push(await hookdeploy.get([bearerLine(used.credential)]));
    expect(asked.map(({ status }) => status)).toEqual([...Array<number>(60).fill(200), 429, 429]);
    await limited.revokeById(used.key);
    asked.push(await hookdeploy.get([bearerLine(used.credential)]));
    expectTurnedDown(asked.at(-1), 401, UNAUTHORIZED);
    for (const response of asked) expectLimitInHeaders(response, 60);
  });

  test(
    'PlanRequests/minute',
    async () => {
      const { beganMs, first, close, next } = await minute;
      expect(first.admitted).toHaveLength(60);
      expectMinuteTold([...first.admitted, ...first.denied], beganMs);
      // Nothing is admitted any more until the window ends, which was asked for up to its last seconds.
      for (const { decision } of close) expect(decision).toBe(Decision.RATE_LIMITED);
      expect(toMs(close.at(-1)?.rateLimit?.retryAfter)).toBeLessThanOrEqual(CLOSE_MS);
      expectMinuteTold(close, beganMs);
      // Then there is a whole window again.
      expect(next.admitted).toHaveLength(60);
      expectMinuteTold([...next.admitted, ...next.denied], beganMs + MINUTE_MS);
    },
    2 * MINUTE_MS,
  );

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
    const times = [Date.now()];
    const { key } = await organization.create({ name: 'CI pipeline' });
    times.push(toMs(key.createTime), Date.now());
    const revocation = await organization.revokeById(key, { actor: aUser('grace', 'api_keys.manage') });
    times.push(toMs(revocation.key?.revokeTime), Date.now());
    expect(times).toEqual([...times].sort((one, other) => one - other));
    const entries = await organization.auditLog();
    expect(entries).toMatchObject([
      { time: toIso(key.createTime), data: { actor: { type: 'USER', id: 'ada' }, key: { name: 'CI pipeline' } } },
      {
        time: toIso(revocation.key?.revokeTime),
        data: { actor: { type: 'USER', id: 'grace' }, key: { name: 'CI pipeline' } },
      },
    ]);
  });
};

// A minute takes long enough once.
describeProduct('hookdeploy', aUser('ada', 'api_keys.manage'), sentences, { stacksAtOnce: true });

type Timestamp = Key['createTime'];

function toIso(time: Timestamp): string {
  return new Date(toMs(time)).toISOString();
}

/** One to be imported by the hash of this token. */
function digestOf(token: string, name: string): ImportKeysItem {
  return ImportKeysItem.fromPartial({ secret: { $case: 'digest', value: sha256(token) }, name });
}

interface Demand {
  readonly admitted: readonly Told[];
  readonly denied: readonly Told[];
}

/** An answer and when it came. */
type Told = VerifyKeyResponse & { readonly toldMs: number };

async function ask(product: Product, credential: Issued['credential']): Promise<Told> {
  const answer = await product.verify(credential);
  return { ...answer, toldMs: Date.now() };
}

function bearerLine(credential: Issued['credential']): string {
  return `Authorization: Bearer ${secretOf(credential)}`;
}

/** So many verifications, some at a time, all of them answered. */
async function demand(product: Product, credential: Issued['credential'], count: number): Promise<Demand> {
  const answers: Told[] = [];
  let asked = 0;
  const client = async () => {
    while (asked < count) {
      asked += 1;
      answers.push(await ask(product, credential));
    }
  };
  await Promise.all(Array.from({ length: 20 }, client));
  const admitted = answers.filter(({ decision }) => decision === Decision.VALID);
  const denied = answers.filter(({ decision }) => decision === Decision.RATE_LIMITED);
  expect(admitted.length + denied.length).toBe(count);
  return { admitted, denied };
}

interface Minute {
  /** When the first request was sent. */
  readonly beganMs: number;
  readonly first: Demand;
  /** Answers up to the end of the window that the first request opened. */
  readonly close: readonly Told[];
  /** After the time that the last of them told to wait. */
  readonly next: Demand;
}

/** Uses up a window, asks about once a second until shortly before its end is told to come, and then uses the next one. */
async function watchMinute(product: Product): Promise<Minute> {
  const { credential } = await product.newOrganization().create({ name: 'CI pipeline' });
  const beganMs = Date.now();
  const first = await demand(product, credential, 70);
  const close: Told[] = [];
  let waitMs: number;
  do {
    const told = await ask(product, credential);
    close.push(told);
    waitMs = toMs(told.rateLimit?.retryAfter);
    if (waitMs > CLOSE_MS) await reach(Date.now() + Math.min(1000, waitMs - CLOSE_MS));
  } while (waitMs > CLOSE_MS);
  await reach((close.at(-1)?.toldMs ?? 0) + waitMs);
  return { beganMs, first, close, next: await demand(product, credential, 70) };
}

/** Asserts that the answers tell of a window of a minute, which the first request opened after it was sent. */
function expectMinuteTold(answers: readonly Told[], sentMs: number): void {
  for (const { decision, rateLimit, toldMs } of answers) {
    expect(rateLimit?.window).toEqual({ seconds: 60n, nanos: 0 });
    expect(toMs(rateLimit?.resetTime)).toBeGreaterThanOrEqual(sentMs + MINUTE_MS);
    expect(toMs(rateLimit?.resetTime)).toBeLessThanOrEqual(toldMs + MINUTE_MS);
    if (decision === Decision.VALID) {
      expect(rateLimit?.retryAfter).toBeUndefined();
      continue;
    }
    expect(toMs(rateLimit?.retryAfter)).toBeGreaterThan(0);
    expect(toMs(rateLimit?.retryAfter)).toBeLessThanOrEqual(MINUTE_MS);
  }
}
