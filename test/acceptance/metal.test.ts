import { expect, test } from 'vitest';

import { ActorType } from '../../src/gen/keyreeve/v1/actor.js';
import { type Credential } from '../../src/gen/keyreeve/v1/credential.js';
import { KeyState } from '../../src/gen/keyreeve/v1/key.js';
import { Decision } from '../../src/gen/keyreeve/v1/verification.js';
import { toldBy } from '../support/grpc-server.js';
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
  secretOf,
  toMs,
} from '../support/product.js';

describeProduct('metal', aUser('ada', 'admin'), (metal) => {
  test('The Metal API uses API keys to authenticate requests.', async () => {
    const { credential } = await metal.newOrganization().create({ name: 'sync' });
    expect(await metal.decisionOn(credential)).toBe(Decision.VALID);
    expect(await metal.decisionOn(undefined)).toBe(Decision.MALFORMED);
  });

  test('Each key belongs to a single organization, and every request is automatically scoped to that organization’s data.', async () => {
    const organization = metal.newOrganization();
    const { credential } = await organization.create({ name: 'sync' });
    expect((await metal.verify(credential)).key).toMatchObject(organization.ref);
    const other = metal.newOrganization();
    const elsewhere = await metal.verify(credential, { organizationId: other.ref.organizationId });
    expect(elsewhere).toMatchObject({ decision: Decision.WRONG_ORGANIZATION });
    expect(elsewhere.key).toBeUndefined();
    expect(await other.list()).toEqual([]);
  });

  test('An API key has two parts that are always sent together:', async () => {
    const organization = metal.newOrganization();
    const { credential } = await organization.create({ name: 'sync' });
    const { clientId, secret } = pairOf(credential);
    const other = pairOf((await organization.create({ name: 'other' })).credential);
    expect(await metal.decisionOn(pair(clientId, secret))).toBe(Decision.VALID);
    // Whichever half is missing, wrong or another key's: nobody learns which.
    for (const half of [
      pair(clientId, ''),
      pair('', secret),
      pair(clientId, other.secret),
      pair(other.clientId, secret),
      pair(clientId, `${secret.slice(0, -1)}!`),
      pair(clientId, neverIssued('')),
      pair('client_x', secret),
    ]) {
      const answer = await metal.verify(half);
      expect(answer).toMatchObject({ decision: Decision.NOT_FOUND });
      expect(answer.key).toBeUndefined();
    }
    expect(await metal.decisionOn(bearer(secret))).toBe(Decision.MALFORMED);
  });

  test('Public identifier for the key.', async () => {
    const organization = metal.newOrganization();
    const { key, credential } = await organization.create({ name: 'sync' });
    const { clientId } = pairOf(credential);
    expect(key.clientId).toBe(clientId);
    expect((await organization.list()).map((listed) => listed.clientId)).toEqual([clientId]);
  });

  test('Secret value that authenticates the request.', async () => {
    const { credential } = await metal.newOrganization().create({ name: 'sync' });
    expect(pairOf(credential).secret).toMatch(/^[0-9A-Za-z]{28,}$/);
    expect(await metal.decisionOn(credential)).toBe(Decision.VALID);
  });

  test('Send both headers on every request:', async () => {
    const organization = metal.newOrganization();
    const [one, other] = [await organization.create({ name: 'one' }), await organization.create({ name: 'other' })];
    const { clientId, secret } = pairOf(one.credential);
    expectLetIn(await metal.get(headers(clientId, secret)), one.key);
    const [idLine = '', secretLine = ''] = headers(clientId, secret);
    for (const lines of [
      [idLine],
      [secretLine],
      headers(pairOf(other.credential).clientId, secret),
      headers(secret, clientId),
      [`Authorization: Bearer ${secret}`, idLine],
    ]) {
      expect((await metal.get(lines)).status).toBe(401);
    }
  });

  test('The secret key is returned only once, when the key is created.', async () => {
    const organization = metal.newOrganization();
    const { key, credential } = await organization.create({ name: 'sync', requestId: 'once' });
    const secret = secretOf(credential);
    const again = await organization.answerToCreate({ name: 'sync', requestId: 'once' });
    expect(again.replayed).toBe(true);
    expect(again.credential).toBeUndefined();
    const seen = [key, again, await organization.list(), await metal.verify(credential), await organization.auditLog()];
    for (const message of seen) expectWithout(message, secret);
  });

  test('If you lose it, delete the key and create a new one.', async () => {
    const organization = metal.newOrganization();
    const lost = await organization.create({ name: 'sync' });
    await organization.revokeById(lost.key);
    const { credential } = await organization.create({ name: 'sync' });
    expect(await metal.decisionOn(lost.credential)).toBe(Decision.REVOKED);
    expect(await metal.decisionOn(credential)).toBe(Decision.VALID);
  });

  test('You need an admin role to manage keys.', async () => {
    const organization = metal.newOrganization();
    const { key, credential } = await organization.create({ name: 'sync' });
    for (const actor of [aUser('bob'), aUser('bob', 'member', 'Admin')]) {
      await expectMayNotManage(organization, key, actor);
    }
    expect(await metal.decisionOn(credential)).toBe(Decision.VALID);
  });

  test('Metal settings page showing the API Keys table with name, client ID, key last four, and created date columns', async () => {
    const organization = metal.newOrganization();
    const before = Date.now();
    const { credential } = await organization.create({ name: 'Production sync' });
    const after = Date.now();
    const { clientId, secret } = pairOf(credential);
    const [row] = await organization.list();
    expect(row).toMatchObject({ name: 'Production sync', clientId, display: `****${secret.slice(-4)}` });
    expect(toMs(row?.createTime)).toBeGreaterThanOrEqual(before);
    expect(toMs(row?.createTime)).toBeLessThanOrEqual(after);
  });

  test('In the API Keys card, click Create API Key, enter a descriptive Name (for example, “Production sync”), and click Create.', async () => {
    const organization = metal.newOrganization();
    expect((await organization.create({ name: 'Production sync' })).key.name).toBe('Production sync');
    await expectRefused(organization.create(), 'NAME_REQUIRED', 'INVALID_ARGUMENT');
  });

  test('Metal shows the new key’s Client ID (x-metal-client-id) and API Key (x-metal-api-key).', async () => {
    const { credential } = await metal.newOrganization().create({ name: 'sync' });
    const { clientId, secret } = pairOf(credential);
    expect(clientId).not.toBe('');
    expect(secret).not.toBe('');
  });

  test('The number of keys you can create depends on your plan.', async () => {
    const organization = metal.newOrganization();
    await Promise.all(Array.from({ length: 100 }, (_, n) => organization.create({ name: `integration ${n}` })));
    const limited = {
      code: 'RESOURCE_EXHAUSTED',
      reason: 'KEY_LIMIT_REACHED',
      metadata: { limit: '100', plan: 'standard' },
      quota: ['plan:standard'],
    };
    expect(await toldBy(organization.create({ name: 'one more' }))).toMatchObject(limited);
    await organization.setPlan('enterprise');
    await organization.create({ name: 'one more' });
    // A smaller plan takes no key away.
    await organization.setPlan('standard');
    expect(await toldBy(organization.create({ name: 'another' }))).toMatchObject(limited);
    expect(await organization.list({ pageSize: 500 })).toHaveLength(101);
  }, 120_000);

  test('If you hit the limit, delete unused keys before creating new ones.', async () => {
    const organization = metal.newOrganization();
    await Promise.all(Array.from({ length: 100 }, (_, n) => organization.create({ name: `integration ${n}` })));
    await expectRefused(organization.create({ name: 'new' }), 'KEY_LIMIT_REACHED', 'RESOURCE_EXHAUSTED');
    await organization.revoke({ $case: 'name', value: 'integration 7' });
    await organization.create({ name: 'new' });
    await expectRefused(organization.create({ name: 'another' }), 'KEY_LIMIT_REACHED', 'RESOURCE_EXHAUSTED');
  }, 120_000);

  test('Once you have a key, you can manage keys programmatically with the API keys endpoints:', async () => {
    const organization = metal.newOrganization();
    const { key, credential } = await organization.create({ name: 'first' });
    // The platform has verified the key, and acts in its name.
    const verified = await metal.verify(credential);
    const actor = { type: ActorType.API_KEY, id: verified.key?.keyId ?? '', permissions: ['admin'] };
    await expectMayNotManage(organization, key, { ...actor, permissions: [] });
    const { key: second } = await organization.create({ name: 'second', actor });
    expect((await organization.list()).map(({ name }) => name)).toEqual(['second', 'first']);
    expect(second.createdBy).toEqual({ type: ActorType.API_KEY, id: key.keyId, permissions: [] });
    const { key: revoked } = await organization.revokeById(second, { actor });
    expect(revoked?.revokedBy).toEqual({ type: ActorType.API_KEY, id: key.keyId, permissions: [] });
    expect((await organization.auditLog()).map(({ data }) => (data as { actor: unknown }).actor)).toEqual([
      { type: 'USER', id: 'ada' },
      { type: 'API_KEY', id: key.keyId },
      { type: 'API_KEY', id: key.keyId },
    ]);
  });

  test('GET /v1/keys — list every key in your organization.', async () => {
    const organization = metal.newOrganization();
    const names = Array.from({ length: 7 }, (_, n) => `integration ${n}`);
    for (const name of names) await organization.create({ name });
    const listed = await organization.list({ pageSize: 3 });
    expect(listed.map(({ name }) => name)).toEqual(names.reverse());
  });

  test('Secrets are never returned again, only metadata such as name and keyLastFour.', async () => {
    const organization = metal.newOrganization();
    const issued = await organization.create({ name: 'sync' });
    const display = `****${secretOf(issued.credential).slice(-4)}`;
    expect(await organization.list()).toMatchObject([{ name: 'sync', display }]);
    await expectNeverToldAgain(metal, organization, issued);
  });

  test('POST /v1/keys — create a new key with a name. The response includes the one-time secret key.', async () => {
    const { key, credential } = await metal.newOrganization().create({ name: 'sync' });
    expect(key.name).toBe('sync');
    expect(await metal.decisionOn(credential)).toBe(Decision.VALID);
  });

  test('DELETE /v1/keys/{key} — revoke a key immediately.', async () => {
    const organization = metal.newOrganization();
    for (const select of ['keyId', 'clientId'] as const) {
      const { key, credential } = await organization.create({ name: `by ${select}` });
      const answer = await organization.revoke({ $case: select, value: key[select] });
      expect(answer).toMatchObject({ key: { state: KeyState.REVOKED }, enforcement: { complete: true } });
      expect(await metal.decisionOn(credential)).toBe(Decision.REVOKED);
    }
  });

  test('Revoked keys stop working within a short cache window.', async () => {
    const organization = metal.newOrganization();
    const { key, credential } = await organization.create({ name: 'sync' });
    const valid = await metal.verify(credential);
    expect(valid.cacheTtl).toEqual({ seconds: 5n, nanos: 0 });
    const { key: revoked, enforcement } = await organization.revokeById(key);
    const answeredAt = Date.now();
    expect(enforcement?.complete).toBe(true);
    // Answers could be kept until the revocation was in force, and not a moment longer.
    const cachesClearMs = toMs(enforcement?.cachesClearTime);
    expect(cachesClearMs).toBeGreaterThanOrEqual(toMs(revoked?.revokeTime) + 5000);
    expect(cachesClearMs).toBeLessThanOrEqual(answeredAt + 5000);
    const denied = await metal.verify(credential);
    expect(denied.decision).toBe(Decision.REVOKED);
    expect(denied.cacheTtl).toBeUndefined();
  });

  test('Create a distinct key for each integration or environment so you can rotate or revoke them independently.', async () => {
    const organization = metal.newOrganization();
    const one = await organization.create({ name: 'staging' });
    const other = await organization.create({ name: 'production' });
    const rotated = await organization.rotate(one.key, { overlap: { seconds: 0n, nanos: 0 } });
    expect(await metal.decisionOn(one.credential)).toBe(Decision.REVOKED);
    expect(await metal.decisionOn(rotated.credential)).toBe(Decision.VALID);
    expect(await metal.decisionOn(other.credential)).toBe(Decision.VALID);
    await organization.revokeById(rotated.key);
    expect(await metal.decisionOn(rotated.credential)).toBe(Decision.REVOKED);
    expect(await metal.decisionOn(other.credential)).toBe(Decision.VALID);
  });

  test('Create a new key, deploy it, then delete the old one to rotate without downtime.', async () => {
    const organization = metal.newOrganization();
    // Names are not unique here, so creating does as well as rotating.
    const successors = [() => organization.create({ name: 'sync' }), ({ key }: Issued) => organization.rotate(key)];
    for (const succeed of successors) {
      const old = await organization.create({ name: 'sync' });
      const before = keepVerifying(metal, old.credential);
      const fresh = await succeed(old);
      const after = keepVerifying(metal, fresh.credential);
      // The new one is deployed: nobody sends the old one any more.
      const decisions = await before.stop();
      await organization.revokeById(old.key);
      decisions.push(...(await after.stop()));
      expect(new Set(decisions)).toEqual(new Set([Decision.VALID]));
      expect(pairOf(fresh.credential).clientId).not.toBe(old.key.clientId);
      expect(await metal.decisionOn(old.credential)).toBe(Decision.REVOKED);
      expect(await metal.decisionOn(fresh.credential)).toBe(Decision.VALID);
    }
  });

  test('Name keys after the integration that uses them so you can audit and revoke precisely.', async () => {
    const organization = metal.newOrganization();
    const { credential } = await organization.create({ name: 'Production sync' });
    const { credential: other } = await organization.create({ name: 'Staging sync' });
    await organization.revoke({ $case: 'name', value: 'Production sync' });
    expect(await metal.decisionOn(credential)).toBe(Decision.REVOKED);
    expect(await metal.decisionOn(other)).toBe(Decision.VALID);
    const [, , event] = await organization.auditLog();
    expect(event).toMatchObject({ type: 'keyreeve.key.revoked', data: { key: { name: 'Production sync' } } });
  });

  test('If credentials are missing or invalid, the API responds with 401 Unauthorized:', async () => {
    const { clientId, secret } = pairOf((await metal.newOrganization().create({ name: 'sync' })).credential);
    const altered = `${secret.startsWith('a') ? 'b' : 'a'}${secret.slice(1)}`;
    // Decisions, not errors: what a gateway answers with the refusal that the keyspace declares.
    expect(await metal.decisionOn(undefined)).toBe(Decision.MALFORMED);
    for (const wrong of [altered, neverIssued('')]) {
      expect(await metal.decisionOn(pair(clientId, wrong))).toBe(Decision.NOT_FOUND);
    }
    for (const lines of [[], headers(clientId, altered), headers(neverIssued(''), secret)]) {
      const { status, headers } = await metal.get(lines);
      expect([status, headers['www-authenticate']]).toEqual([401, 'ApiKey realm="metal"']);
    }
  });

  test('{ "error": "invalid api key or clientId" }', async () => {
    const organization = metal.newOrganization();
    const { key, credential } = await organization.create({ name: 'sync' });
    const { clientId, secret } = pairOf(credential);
    await organization.revokeById(key);
    for (const lines of [[], headers(clientId, secret), headers('client', 'secret'), headers('', '')]) {
      const response = await metal.get(lines);
      expectTurnedDown(response, 401, '{"error":"invalid api key or clientId"}');
      expect(JSON.parse(response.body)).toEqual({ error: 'invalid api key or clientId' });
    }
  });
});

function headers(clientId: string, secret: string): string[] {
  return [`x-metal-client-id: ${clientId}`, `x-metal-api-key: ${secret}`];
}

function pairOf({ kind }: Credential): { clientId: string; secret: string } {
  if (kind?.$case !== 'client') throw new Error('not a client credential');
  return kind.value;
}

function pair(clientId: string, secret: string): Credential {
  return { kind: { $case: 'client', value: { clientId, secret } } };
}
