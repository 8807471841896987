import { expect, test } from 'vitest';

import { Key, KeyState, RevocationReason } from '../../src/gen/keyreeve/v1/key.js';
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

describeProduct('hotmetal', aUser('ada'), (hotmetal) => {
  test('Create and manage API keys for programmatic access.', async () => {
    const account = hotmetal.newOrganization();
    const { key, credential } = await account.create({ name: 'agent' });
    expect(await hotmetal.decisionOn(credential)).toBe(Decision.VALID);
    const renaming = { key: Key.create({ name: 'My AI agent' }), updateMask: ['name'] };
    await account.update({ $case: 'keyId', value: key.keyId }, renaming);
    expect((await account.list()).map(({ keyId, name }) => [keyId, name])).toEqual([[key.keyId, 'My AI agent']]);
    await account.revokeById(key);
    expect(await hotmetal.decisionOn(credential)).toBe(Decision.REVOKED);
    expect(await account.list()).toEqual([]);
  });

  test('API keys let external tools, AI agents, and custom integrations access your Hot Metal account programmatically.', async () => {
    const account = hotmetal.newOrganization();
    const { key, credential } = await account.create();
    const answer = await hotmetal.verify(credential);
    expect(answer.decision).toBe(Decision.VALID);
    expect(answer.key).toMatchObject({ keyId: key.keyId, ...account.ref });
  });

  test('Each key acts as a Bearer token for the Hot Metal API.', async () => {
    const { credential } = await hotmetal.newOrganization().create();
    expect(credential.kind?.$case).toBe('bearerToken');
    expect(await hotmetal.decisionOn(credential)).toBe(Decision.VALID);
    expect(await hotmetal.decisionOn(undefined)).toBe(Decision.MALFORMED);
    const unknown = await hotmetal.verify(bearer(neverIssued('hm_')));
    expect(unknown.decision).toBe(Decision.NOT_FOUND);
    expect(unknown.key).toBeUndefined();
    expect(unknown.cacheTtl).toBeUndefined();
  });

  test('Optionally, give the key a descriptive label (for example, “My AI agent” or “CI/CD pipeline”).', async () => {
    const account = hotmetal.newOrganization();
    for (const name of ['My AI agent', 'CI/CD pipeline']) await account.create({ name });
    expect((await account.list()).map(({ name }) => name)).toEqual(['CI/CD pipeline', 'My AI agent']);
  });

  test('It starts with hm_ followed by a random string.', async () => {
    const account = hotmetal.newOrganization();
    const secrets = [];
    for (let n = 0; n < 20; n += 1) secrets.push(secretOf((await account.create()).credential));
    for (const secret of secrets) expect(secret).toMatch(/^hm_[0-9A-Za-z]{22,}$/);
    // Beside what they all begin with, no two have even their first characters in common.
    expect(new Set(secrets.map((secret) => secret.slice(3, 13))).size).toBe(20);
  });

  test('For security reasons, the full key is only shown once.', async () => {
    const account = hotmetal.newOrganization();
    const requestId = 'once';
    const { key, credential } = await account.create({ requestId });
    const secret = secretOf(credential);
    expectWithout(key, secret);
    const again = await account.answerToCreate({ requestId });
    expect(again).toMatchObject({ replayed: true, key: { keyId: key.keyId } });
    expect(again.credential).toBeUndefined();
    expectWithout(again, secret);
    await expectNeverToldAgain(hotmetal, account, { key, credential });
  });

  test('After you dismiss the banner or navigate away, you will only see a masked version (e.g., hm_****abcd).', async () => {
    const account = hotmetal.newOrganization();
    await account.create();
    const [listed] = await account.list();
    expect(listed?.display).toMatch(/^hm_\*{4}[0-9A-Za-z]{4}$/);
  });

  test('Include your API key as a Bearer token in the Authorization header of your HTTP requests:', async () => {
    const { key, credential } = await hotmetal.newOrganization().create({ name: 'My AI agent' });
    const token = secretOf(credential);
    expectLetIn(await hotmetal.get([`Authorization: Bearer ${token}`]), key);
    for (const lines of [
      [],
      [`Authorization: ${token}`],
      [`X-API-Key: ${token}`],
      [`Authorization: Bearer ${neverIssued('hm_')}`],
    ]) {
      expectTurnedDown(await hotmetal.get(lines), 401, '{"error":"unauthorized"}');
    }
  });

  test('The API Keys section lists all of your active keys.', async () => {
    const account = hotmetal.newOrganization();
    const kept = [];
    for (let n = 0; n < 3; n += 1) kept.push((await account.create()).key.keyId);
    const { key: gone } = await account.create();
    await account.revokeById(gone);
    await hotmetal.newOrganization().create();
    const idsOf = async (states: KeyState[] = []) => (await account.list({ states })).map(({ keyId }) => keyId);
    expect(await idsOf()).toEqual(kept.toReversed());
    const { key: off } = await account.create();
    const disabling = { key: Key.create({ disabled: true }), updateMask: ['disabled'] };
    await account.update({ $case: 'keyId', value: off.keyId }, disabling);
    const { key: over } = await account.create({
      expiration: { $case: 'ttl', value: { seconds: 0n, nanos: 1_000_000 } },
    });
    await expect.poll(async () => (await account.get(over)).state).toBe(KeyState.EXPIRED);
    expect(await idsOf([KeyState.ACTIVE])).toEqual(kept.toReversed());
    // What could work again is not hidden unless asked.
    expect(await idsOf()).toEqual([over.keyId, off.keyId, ...kept.toReversed()]);
  });

  test('Label — The name you gave it (or “Untitled key” if you did not set one).', async () => {
    const account = hotmetal.newOrganization();
    await account.create({ name: 'CI/CD pipeline' });
    await account.create();
    expect((await account.list()).map(({ name }) => name)).toEqual(['Untitled key', 'CI/CD pipeline']);
  });

  test('Masked key — The last four characters of the key, so you can identify it.', async () => {
    const account = hotmetal.newOrganization();
    const { credential } = await account.create();
    const [listed] = await account.list();
    expect(listed?.display).toBe(`hm_****${secretOf(credential).slice(-4)}`);
  });

  test('Created date — When the key was generated.', async () => {
    const account = hotmetal.newOrganization();
    const before = Date.now();
    await account.create();
    const after = Date.now();
    const [listed] = await account.list();
    expect(toMs(listed?.createTime)).toBeGreaterThanOrEqual(before);
    expect(toMs(listed?.createTime)).toBeLessThanOrEqual(after);
  });

  test('Last used — When the key was last used to make an API call (or “Never used” if it has not been used yet).', async () => {
    const account = hotmetal.newOrganization();
    const { key: idle } = await account.create();
    const { key: busy, credential } = await account.create();
    const before = Date.now();
    await hotmetal.verify(credential);
    const after = Date.now();
    const lastUse = async (keyId: string) => (await account.list()).find((key) => key.keyId === keyId)?.lastUseTime;
    await expect.poll(() => lastUse(busy.keyId)).toBeDefined();
    expect(toMs(await lastUse(busy.keyId))).toBeGreaterThanOrEqual(before);
    expect(toMs(await lastUse(busy.keyId))).toBeLessThanOrEqual(after);
    expect(await lastUse(idle.keyId)).toBeUndefined();
  });

  test('A confirmation modal will appear, showing the key label and last four characters so you can verify you are revoking the right one.', async () => {
    const account = hotmetal.newOrganization();
    const { credential } = await account.create({ name: 'old agent' });
    await account.create({ name: 'new agent' });
    const lastFour = secretOf(credential).slice(-4);
    const chosen = (await account.list()).filter(({ display }) => display.endsWith(lastFour));
    expect(chosen.map(({ name }) => name)).toContain('old agent');
    for (const key of chosen.filter(({ name }) => name === 'old agent')) await account.revokeById(key);
    expect(await hotmetal.decisionOn(credential)).toBe(Decision.REVOKED);
    expect((await account.list()).map(({ name }) => name)).toEqual(['new agent']);
  });

  test('If you no longer need a key, or if you suspect it has been compromised:', async () => {
    const account = hotmetal.newOrganization();
    for (const reason of [RevocationReason.UNUSED, RevocationReason.COMPROMISED]) {
      const { key } = await account.create();
      expect((await account.revokeById(key, { reason })).key).toMatchObject({
        state: KeyState.REVOKED,
        revocationReason: reason,
      });
    }
  });

  test('Revocation is permanent and takes effect immediately.', async () => {
    const account = hotmetal.newOrganization();
    const { key, credential } = await account.create();
    const valid = await hotmetal.verify(credential);
    // Nobody was allowed to keep the answer.
    expect(valid.cacheTtl).toEqual({ seconds: 0n, nanos: 0 });
    const first = await account.revokeById(key);
    expect(first.enforcement).toMatchObject({ complete: true });
    expect(await hotmetal.decisionOn(credential)).toBe(Decision.REVOKED);
    // Again, and with another reason, it tells of the first time.
    const again = await account.revokeById(key, { reason: RevocationReason.COMPROMISED });
    // The last use before it may be written later.
    const ended = { ...first.key, lastUseTime: undefined };
    expect({ ...again.key, lastUseTime: undefined }).toEqual(ended);
    // Nothing brings it back: no change, no successor, no import.
    const selector = { $case: 'keyId', value: key.keyId } as const;
    for (const field of ['disabled', 'expire_time']) {
      const update = account.update(selector, { key: Key.create(), updateMask: [field] });
      await expectRefused(update, 'KEY_REVOKED', 'FAILED_PRECONDITION');
    }
    await expectRefused(account.rotate(key), 'KEY_REVOKED', 'FAILED_PRECONDITION');
    for (const secret of [
      { $case: 'digest', value: sha256(secretOf(credential)) } as const,
      { $case: 'credential', value: credential } as const,
    ]) {
      const { results } = await account.import([ImportKeysItem.fromPartial({ secret })]);
      expect(results).toMatchObject([{ alreadyImported: true, result: { value: { state: KeyState.REVOKED } } }]);
    }
    expect({ ...(await account.get(key)), lastUseTime: undefined }).toEqual(ended);
    expect(await hotmetal.decisionOn(credential)).toBe(Decision.REVOKED);
  });

  test('Any agent or integration using that key will lose access as soon as the key is revoked.', async () => {
    const account = hotmetal.newOrganization();
    const { key, credential } = await account.create();
    let revoked = false;
    const late: Decision[] = [];
    const agents = Array.from({ length: 4 }, async () => {
      for (;;) {
        const wasRevoked = revoked;
        const decision = await hotmetal.decisionOn(credential);
        if (wasRevoked) return late.push(decision);
      }
    });
    await account.revokeById(key);
    revoked = true;
    await Promise.all(agents);
    expect(late).toEqual(Array.from({ length: 4 }, () => Decision.REVOKED));
  });

  test('You can always create a new key if needed.', async () => {
    const account = hotmetal.newOrganization();
    const { key } = await account.create({ name: 'agent' });
    await account.revokeById(key);
    const { credential } = await account.create({ name: 'agent' });
    expect(await hotmetal.decisionOn(credential)).toBe(Decision.VALID);
  });

  test('If you have multiple tools accessing your account, create a separate key for each one.', async () => {
    const account = hotmetal.newOrganization();
    const tools = [];
    for (const name of ['one', 'two', 'three']) tools.push(await account.create({ name }));
    const seen = await Promise.all(tools.map(async ({ credential }) => (await hotmetal.verify(credential)).key?.name));
    expect(seen).toEqual(['one', 'two', 'three']);
  });

  test('That way you can revoke a single key without disrupting everything else.', async () => {
    const account = hotmetal.newOrganization();
    const one = await account.create();
    const other = await account.create();
    await account.revokeById(one.key);
    expect(await hotmetal.decisionOn(one.credential)).toBe(Decision.REVOKED);
    expect(await hotmetal.decisionOn(other.credential)).toBe(Decision.VALID);
  });

  // These two wait for the same writing of last uses.
  test(
    'A good label makes it easy to audit which keys are in use and what they are for.',
    { concurrent: true },
    async ({ expect }) => {
      const account = hotmetal.newOrganization();
      const nightly = await account.create({ name: 'nightly export' });
      await account.create({ name: 'old agent' });
      await hotmetal.verify(nightly.credential);
      const inUse = async () => (await account.list()).filter(({ lastUseTime }) => lastUseTime).map(({ name }) => name);
      await expect.poll(inUse).toEqual(['nightly export']);
      await account.revokeById(nightly.key);
      const told = (await account.auditLog()).map(({ type, data }) => [
        type,
        (data as { key: { name: string } }).key.name,
      ]);
      expect(told).toEqual([
        ['keyreeve.key.created', 'nightly export'],
        ['keyreeve.key.created', 'old agent'],
        ['keyreeve.key.revoked', 'nightly export'],
      ]);
    },
  );

  test(
    'If a key shows “Never used” and you do not remember creating it, it is safe to revoke.',
    { concurrent: true },
    async ({ expect }) => {
      const account = hotmetal.newOrganization();
      const { credential } = await account.create({ name: 'in use' });
      const forgotten = await account.create({ name: 'forgotten' });
      await hotmetal.verify(credential);
      const neverUsed = async () => (await account.list()).filter(({ lastUseTime }) => lastUseTime === undefined);
      await expect.poll(async () => (await neverUsed()).map(({ name }) => name)).toEqual(['forgotten']);
      for (const key of await neverUsed()) await account.revokeById(key);
      expect((await account.get(forgotten.key)).state).toBe(KeyState.REVOKED);
      expect(await hotmetal.decisionOn(forgotten.credential)).toBe(Decision.REVOKED);
      expect(await hotmetal.decisionOn(credential)).toBe(Decision.VALID);
    },
  );
});
