/** Importing, as clients see it: on SQLite and on MongoDB, since items commit one by one. */
import { createHash, randomBytes, randomUUID } from 'node:crypto';
import { describe, expect, inject, test } from 'vitest';

import type { Credential } from '../../src/gen/keyreeve/v1/credential.js';
import type { Failure } from '../../src/gen/keyreeve/v1/failure.js';
import { type Key, KeyState } from '../../src/gen/keyreeve/v1/key.js';
import {
  type ImportKeysItem,
  type ImportKeysRequest,
  type ImportKeysResponse,
  VerifyKeyRequest,
  type VerifyKeyResponse,
} from '../../src/gen/keyreeve/v1/key_service.js';
import type { UpdateOrganizationResponse } from '../../src/gen/keyreeve/v1/organization_service.js';
import { Decision } from '../../src/gen/keyreeve/v1/verification.js';
import { Secret } from '../../src/keys/secret.js';
import { StoreFault } from '../../src/store/faults.js';
import { openMongoStore } from '../../src/store/mongodb/open.js';
import { breakable, type Breakage } from '../support/breakable-store.js';
import { call } from '../support/call.js';
import { aPepper, SOURCE } from '../support/domain.js';
import { expectWhole } from '../support/expect-whole.js';
import {
  ADA,
  create,
  letIn,
  startServer,
  type TestServer,
  type TestServerOptions,
  toImport,
  toldBy,
  toRevoke,
  toUpdateOrganization,
} from '../support/grpc-server.js';
import { inOwnDatabase } from '../support/mongodb-store.js';
import { organizationsOf } from '../support/store-calls.js';

const bearer = (value: string): Credential => ({ kind: { $case: 'bearerToken', value } });
const pair = (clientId: string, secret: string): Credential => ({
  kind: { $case: 'client', value: { clientId, secret } },
});
const sha256 = (text: string): Buffer => createHash('sha256').update(text).digest();
const byDigest = (value: Buffer): Partial<ImportKeysItem> => ({ secret: { $case: 'digest', value } });
const byCredential = (value: Credential): Partial<ImportKeysItem> => ({ secret: { $case: 'credential', value } });
const anItem = (): Partial<ImportKeysItem> => byDigest(randomBytes(32));
const at = (ms: number) => ({
  seconds: BigInt(Math.floor(ms / 1000)),
  nanos: (((ms % 1000) + 1000) % 1000) * 1_000_000,
});

const LEGACY = `old_${'a1b2c3d4'.repeat(4)}`;
const old = { keyspace: 'old' };

const stores: Record<string, () => TestServerOptions> = {
  SQLite: () => ({}),
  MongoDB: () => {
    const uri = new Secret(inOwnDatabase(inject('mongodbUri')));
    return { openStore: (clock) => openMongoStore({ uri, source: SOURCE, clock, report: () => undefined }) };
  },
};

describe.for(Object.entries(stores))('on %s', ([, onStore]) => {
  test('a key from before Keyreeve verifies after its digest was imported, and comes with all that was known of it', async () => {
    await using service = await startServer(onStore());
    const times = { createTime: at(1_000_000_000_123), lastUseTime: at(1_600_000_000_000), expireTime: at(4e12) };
    const [result] = await importKeys(
      service,
      [
        {
          ...byDigest(sha256(LEGACY)),
          name: ' Cafe\u0301 ',
          display: 'old_a1b2...',
          scopes: ['b', 'a'],
          labels: new Map([['env', 'prod']]),
          ...times,
        },
      ],
      old,
    );
    expect(keyOf(result)).toMatchObject({
      ...old,
      name: 'Café',
      display: 'old_a1b2...',
      state: KeyState.ACTIVE,
      scopes: ['a', 'b'],
      labels: new Map([['env', 'prod']]),
      createdBy: { id: 'ada' },
      ...times,
    });
    expect(result?.alreadyImported).toBe(false);
    expect(await decide(service, bearer(LEGACY), old)).toBe(Decision.VALID);
    const events = await expectWhole(service.store, { ...old, organizationId: 'acme' });
    expect(events.map(({ type }) => type)).toEqual(['key.imported']);
  });

  test('importing again answers the existing keys, and makes none: also after a break in the middle', async () => {
    const breakage: Breakage = {};
    await using service = await startServer({ ...onStore(), wrap: (store) => breakable(store, breakage) });
    const items = Array.from({ length: 12 }, anItem);
    let changes = 0;
    breakage.before = (name) => {
      if (name !== 'change' || (changes += 1) <= 5 || changes === 8) return Promise.resolve();
      return Promise.reject(new StoreFault(changes === 6 ? 'contention' : 'unavailable', 'away'));
    };
    const broken = await importKeys(service, items);
    expect(broken.map((result) => reasonOf(result) ?? 'imported')).toEqual([
      ...Array<string>(5).fill('imported'),
      'CONTENTION',
      'STORE_UNAVAILABLE',
      'imported',
      ...Array<string>(4).fill('STORE_UNAVAILABLE'),
    ]);
    delete breakage.before;
    const whole = await importKeys(service, items);
    expect(whole.map(({ alreadyImported }) => alreadyImported)).toEqual(
      broken.map((result) => reasonOf(result) === undefined),
    );
    const again = await importKeys(service, items);
    expect(again.every(({ alreadyImported }) => alreadyImported)).toBe(true);
    expect(again.map((result) => keyOf(result).keyId)).toEqual(whole.map((result) => keyOf(result).keyId));
    expect(await expectWhole(service.store)).toHaveLength(12);
  });

  test('the same digest twice in one import, and imports that race, make one key', async () => {
    await using service = await startServer(onStore());
    const item = anItem();
    const answers = await Promise.all(Array.from({ length: 8 }, () => importKeys(service, [item, item])));
    const results = answers.flat();
    expect(new Set(results.map((result) => keyOf(result).keyId)).size).toBe(1);
    expect(results.filter(({ alreadyImported }) => !alreadyImported)).toHaveLength(1);
    expect(await expectWhole(service.store)).toHaveLength(1);
  });

  test('a digest belongs to one organization of a keyspace, and is free in another keyspace', async () => {
    await using service = await startServer(onStore());
    const item = anItem();
    await importKeys(service, [item]);
    const [taken] = await importKeys(service, [item], { organizationId: 'other' });
    expect(failureOf(taken)).toMatchObject({ code: 6, reason: 'DIGEST_TAKEN', field: 'digest' });
    const [elsewhere] = await importKeys(service, [item], old);
    expect(keyOf(elsewhere)).toMatchObject(old);
    expect((await organizationsOf(service.store)).map(({ organizationId }) => organizationId)).toEqual([
      'acme',
      'acme',
    ]);
  });

  test('one item that fails stops no other, and each failure says what the call would have said', async () => {
    await using service = await startServer(onStore());
    await create(service, { keyspace: 'named', name: 'taken' });
    const named = (fields: Partial<ImportKeysItem>) => ({ ...anItem(), name: 'x', ...fields });
    const future = at(Date.now() + 60_000);
    const cases: [Partial<ImportKeysItem>, reason: string, field: string][] = [
      [{ ...named({}), secret: undefined }, 'DIGEST_INVALID', 'digest'],
      [named(byDigest(randomBytes(31))), 'DIGEST_INVALID', 'digest'],
      [named(byDigest(randomBytes(33))), 'DIGEST_INVALID', 'digest'],
      [named(byDigest(Buffer.alloc(0))), 'DIGEST_INVALID', 'digest'],
      [named(byCredential(bearer('named_wrong'))), 'DIGEST_INVALID', 'credential'],
      [named(byCredential(pair('client', 'x'))), 'DIGEST_INVALID', 'credential'],
      [named(byCredential({ kind: undefined })), 'DIGEST_INVALID', 'credential'],
      [named(byCredential(bearer('named_\ufffd'))), 'DIGEST_INVALID', 'credential'],
      [named({ clientId: 'client' }), 'DIGEST_INVALID', 'client_id'],
      [named({ name: '' }), 'NAME_REQUIRED', 'name'],
      [named({ name: ' ' }), 'NAME_INVALID', 'name'],
      [named({ name: 'taken' }), 'NAME_TAKEN', ''],
      [named({ name: '\ufffd' }), 'TEXT_INVALID', 'name'],
      [named({ type: 'AZURE' }), 'TYPE_INVALID', 'type'],
      [named({ display: 'x'.repeat(65) }), 'TEXT_INVALID', 'display'],
      [named({ display: 'a\nb' }), 'TEXT_INVALID', 'display'],
      [named({ scopes: ['ok', 'not ok'] }), 'SCOPES_INVALID', 'scopes[1]'],
      [named({ labels: new Map([['A', '']]) }), 'LABELS_INVALID', 'labels'],
      [named({ createTime: future }), 'EXPIRATION_INVALID', 'create_time'],
      [named({ lastUseTime: future }), 'EXPIRATION_INVALID', 'last_use_time'],
      [named({ expireTime: { seconds: 2n ** 62n, nanos: 0 } }), 'EXPIRATION_INVALID', 'expire_time'],
      [named({ createTime: { seconds: 0n, nanos: -1 } }), 'EXPIRATION_INVALID', 'create_time'],
    ];
    const results = await importKeys(service, [...cases.map(([item]) => item), named({ name: 'last' })], {
      keyspace: 'named',
    });
    for (const [n, [, reason, field]] of cases.entries()) {
      const failure = failureOf(results[n]);
      expect({ n, reason: failure.reason, field: failure.field }).toEqual({ n, reason, field });
      expect(failure.message).toMatch(/^\S.{20,}$/);
      expect(failure.code).toBe(reason === 'NAME_TAKEN' ? 6 : 3);
    }
    expect(keyOf(results.at(-1)).name).toBe('last');
    expect(await expectWhole(service.store, { keyspace: 'named', organizationId: 'acme' })).toHaveLength(2);
  });
});

test('a credential is taken over whole in its keyspace’s form, and yields its display', async () => {
  await using other = await startServer();
  await using service = await startServer();
  const { key, credential } = await create(other);
  const [ours, legacy] = [
    await importKeys(service, [byCredential(credential)]),
    await importKeys(service, [byCredential(bearer(LEGACY)), byDigest(sha256(LEGACY))], old),
  ];
  expect(keyOf(ours[0]).display).toBe(key.display);
  expect(await decide(service, credential)).toBe(Decision.VALID);
  expect(keyOf(legacy[0]).display).toBe('old_a1b2...');
  expect(legacy[1]).toMatchObject({ alreadyImported: true });
  const [shown] = await importKeys(service, [{ ...byCredential(credential), display: 'mine' }]);
  expect(failureOf(shown)).toMatchObject({ reason: 'TEXT_INVALID', field: 'display' });
  const [elsewhere] = await importKeys(service, [byCredential(credential)], { organizationId: 'other' });
  expect(failureOf(elsewhere)).toMatchObject({ reason: 'DIGEST_TAKEN', field: 'credential' });
});

test('a display that is the credential itself is refused, and none shows the prefix alone', async () => {
  await using service = await startServer();
  const [whole] = await importKeys(service, [{ ...byDigest(sha256(LEGACY)), display: LEGACY }], old);
  expect(failureOf(whole)).toMatchObject({ reason: 'TEXT_INVALID', field: 'display' });
  const [none] = await importKeys(service, [byDigest(sha256(LEGACY))], old);
  expect(keyOf(none).display).toBe('old_...');
  expect(service.logged.join('')).not.toContain(LEGACY);
});

test('a pair from before Keyreeve verifies after its digest was imported, whatever its halves look like', async () => {
  await using service = await startServer();
  const secret = `sk-${'a1b2c3d4'.repeat(4)}`;
  const oldpair = { keyspace: 'oldpair' };
  await importKeys(service, [{ ...byDigest(sha256(secret)), clientId: 'tenant-7', name: 'old' }], oldpair);
  const decisionOn = async (credential: Credential) => {
    const request = VerifyKeyRequest.fromPartial({ ...oldpair, credential });
    return (await call<VerifyKeyResponse>((done) => service.keys.verifyKey(request, done))).decision;
  };
  expect(await decisionOn(pair('tenant-7', secret))).toBe(Decision.VALID);
  expect(await decisionOn(pair('tenant-8', secret))).toBe(Decision.NOT_FOUND);
  expect(await decisionOn(pair('tenant-7', secret.replace('a', 'b')))).toBe(Decision.NOT_FOUND);
});

test('verifications are answered while a long import goes on', async () => {
  await using service = await startServer();
  const { credential } = await create(service);
  const request = VerifyKeyRequest.fromPartial({ keyspace: 'shop', credential });
  const order: string[] = [];
  const importing = importKeys(service, Array.from({ length: 500 }, anItem)).then(() => order.push('imported'));
  for (let n = 0; n < 10; n += 1) {
    await call<VerifyKeyResponse>((done) => service.keys.verifyKey(request, done));
    order.push('verified');
  }
  await importing;
  expect(order.indexOf('imported')).toBe(10);
});

test('in pair form a digest needs its client id, which selects one key', async () => {
  await using service = await startServer();
  await using other = await startServer();
  const there = { keyspace: 'pair' };
  const { credential } = await create(other, there);
  if (credential.kind?.$case !== 'client') throw new Error('no pair');
  const { clientId, secret } = credential.kind.value;
  const digest = byDigest(sha256(secret));
  const cases: [Partial<ImportKeysItem>, field: string][] = [
    [digest, 'client_id'],
    [{ ...digest, clientId: 'a b' }, 'client_id'],
    [{ ...digest, clientId: 'é' }, 'client_id'],
    [{ ...digest, clientId: 'c'.repeat(129) }, 'client_id'],
    [{ ...byCredential(credential), clientId }, 'client_id'],
    [byCredential(bearer(secret)), 'credential'],
    [byCredential(pair('', secret)), 'credential'],
  ];
  const failures = await importKeys(
    service,
    cases.map(([item]) => item),
    there,
  );
  for (const [n, [, field]] of cases.entries()) {
    expect(failureOf(failures[n])).toMatchObject({ reason: 'DIGEST_INVALID', field });
  }
  const results = await importKeys(
    service,
    [
      { ...digest, clientId },
      { ...anItem(), clientId },
    ],
    there,
  );
  expect(keyOf(results[0])).toMatchObject({ clientId });
  expect(failureOf(results[1])).toMatchObject({ code: 6, reason: 'DIGEST_TAKEN', field: 'client_id' });
  expect(await decide(service, credential, there)).toBe(Decision.VALID);
});

test('imports keep to the plan’s limit, the keyspace’s lifetime, and a suspension', async () => {
  await using service = await startServer();
  const limited = await importKeys(service, Array.from({ length: 5 }, anItem), { keyspace: 'limited' });
  expect(limited.map((result) => reasonOf(result))).toEqual([
    undefined,
    undefined,
    undefined,
    'KEY_LIMIT_REACHED',
    'KEY_LIMIT_REACHED',
  ]);
  const brief = await importKeys(
    service,
    [
      anItem(),
      { ...anItem(), expireTime: at(Date.now() + 3_700_000) },
      { ...anItem(), expireTime: at(Date.now() + 3_000_000) },
      { ...anItem(), expireTime: at(1000) },
    ],
    { keyspace: 'brief' },
  );
  expect(brief.map((result) => reasonOf(result))).toEqual([
    'EXPIRATION_INVALID',
    'EXPIRATION_INVALID',
    undefined,
    undefined,
  ]);
  expect(keyOf(brief[3]).state).toBe(KeyState.EXPIRED);
  await call<UpdateOrganizationResponse>((done) =>
    service.organizations.updateOrganization(toUpdateOrganization({ suspended: true }), done),
  );
  const [suspended] = await importKeys(service, [anItem()], { keyspace: 'tiered' });
  expect(failureOf(suspended)).toMatchObject({ code: 9, reason: 'ORGANIZATION_SUSPENDED' });
});

test('an imported key may arrive switched off, and one that was revoked since stays revoked', async () => {
  await using service = await startServer();
  const [off] = await importKeys(service, [{ ...byDigest(sha256(LEGACY)), disabled: true }], old);
  expect(keyOf(off)).toMatchObject({ state: KeyState.DISABLED, disabled: true });
  expect(await decide(service, bearer(LEGACY), old)).toBe(Decision.DISABLED);
  await call((done) => service.keys.revokeKey(toRevoke(keyOf(off)), done));
  const [again] = await importKeys(service, [byDigest(sha256(LEGACY))], old);
  expect(again).toMatchObject({ alreadyImported: true });
  expect(keyOf(again).state).toBe(KeyState.REVOKED);
  expect(await decide(service, bearer(LEGACY), old)).toBe(Decision.REVOKED);
});

test('the last use is kept as the later of those known, and an import that cannot note it says so and can be repeated', async () => {
  const breakage: Breakage = {};
  await using service = await startServer({ wrap: (store) => breakable(store, breakage) });
  const item = anItem();
  breakage.before = (name) =>
    name === 'recordUses' ? Promise.reject(new StoreFault('unavailable', 'away')) : Promise.resolve();
  const withUse = { ...item, lastUseTime: at(2_000_000) };
  const unnoted = await importKeys(service, [withUse, anItem()]);
  expect(failureOf(unnoted[0])).toMatchObject({ code: 14, reason: 'STORE_UNAVAILABLE' });
  expect(reasonOf(unnoted[1])).toBeUndefined();
  delete breakage.before;
  const [noted] = await importKeys(service, [withUse]);
  expect(noted?.alreadyImported).toBe(true);
  expect(keyOf(noted).lastUseTime).toEqual(at(2_000_000));
  const [earlier] = await importKeys(service, [{ ...item, lastUseTime: at(1_000_000) }]);
  expect(keyOf(earlier).lastUseTime).toEqual(at(2_000_000));
  expect(keyOf((await importKeys(service, [item]))[0])).toEqual(keyOf(noted));
});

test('an answer stays below what clients take, and the keys that it has no room for are left for another request', async () => {
  await using service = await startServer();
  const labels = new Map(Array.from({ length: 16 }, (_, n) => [`label${n}`, '€'.repeat(58)]));
  const scopes = Array.from({ length: 30 }, (_, n) => `${n}:${'s'.repeat(95)}`);
  const large = { name: '€'.repeat(200), labels, scopes };
  const items = Array.from({ length: 500 }, () => ({ ...anItem(), ...large }));
  const digests = items.map(({ secret }) => ({ secret }));
  for (let from = 0; from < items.length; from += 25) await importKeys(service, items.slice(from, from + 25));
  const results = await importKeys(service, digests);
  const known = results.filter(({ alreadyImported }) => alreadyImported).length;
  expect(known).toBeGreaterThan(100);
  expect(new Set(results.slice(known).map(reasonOf))).toEqual(new Set(['TOO_MANY_ITEMS']));
  expect((await importKeys(service, digests.slice(known))).every(({ alreadyImported }) => alreadyImported)).toBe(true);
});

test('text that holds the credential is refused with its field: it would be shown', async () => {
  await using service = await startServer();
  const texts: [string, Partial<ImportKeysItem>][] = [
    ['name', { name: `of ${LEGACY}` }],
    ['scopes', { scopes: [`a:${LEGACY}`] }],
    ['labels', { labels: new Map([['token', LEGACY]]) }],
    ['labels', { labels: new Map([[LEGACY, 'token']]) }],
  ];
  for (const [field, text] of texts) {
    const [result] = await importKeys(service, [{ ...byCredential(bearer(LEGACY)), ...text }], old);
    expect(reasonOf(result)).toBe('TEXT_INVALID');
    expect(failureOf(result).field).toBe(field);
    expect(JSON.stringify(failureOf(result))).not.toContain(LEGACY);
  }
});

test('501 items are refused whole, 500 are not, and none is nothing', async () => {
  await using service = await startServer();
  const items = Array.from({ length: 501 }, anItem);
  const before = await organizationsOf(service.store);
  const told = await toldBy(importKeys(service, items, { requestId: 'r1' }));
  expect(told).toMatchObject({ code: 'INVALID_ARGUMENT', reason: 'TOO_MANY_ITEMS', fields: ['keys'] });
  expect(await organizationsOf(service.store)).toEqual(before);
  expect(await importKeys(service, [])).toEqual([]);
  const results = await importKeys(service, items.slice(1), { requestId: 'r1' });
  expect(results.filter((result) => reasonOf(result) === undefined)).toHaveLength(500);
});

test('another body under a request id is refused and changes nothing; the same one goes on, by whatever peppers', async () => {
  let peppers = [aPepper(1)];
  await using service = await startServer({
    get peppers() {
      return peppers;
    },
  });
  const requestId = randomUUID();
  const items = [
    {
      ...anItem(),
      labels: new Map([
        ['a', '1'],
        ['b', '2'],
      ]),
      scopes: ['x', 'y'],
    },
    byDigest(Buffer.alloc(3)),
    anItem(),
  ];
  const first = await importKeys(service, items, { requestId });
  const before = await organizationsOf(service.store);
  for (const [what, others] of Object.entries({
    'an item more': [...items, anItem()],
    'an item less': items.slice(1),
    'another order': [...items].reverse(),
    'another digest': [items[0] ?? {}, items[1] ?? {}, anItem()],
    'another name': [{ ...items[0], name: 'x' }, ...items.slice(1)],
    'the item at fault put right': [items[0] ?? {}, anItem(), items[2] ?? {}],
  })) {
    const told = await toldBy(importKeys(service, others, { requestId }));
    expect(told, what).toMatchObject({ code: 'FAILED_PRECONDITION', reason: 'REQUEST_ID_REUSED' });
  }
  expect(await organizationsOf(service.store)).toEqual(before);
  peppers = [aPepper(1), aPepper(2)];
  await service.restart();
  const same = [
    {
      ...items[0],
      labels: new Map([
        ['b', '2'],
        ['a', '1'],
      ]),
      scopes: ['y', 'x', 'y'],
    },
    ...items.slice(1),
  ];
  const again = await importKeys(service, same, { requestId });
  expect(again.map((result) => reasonOf(result))).toEqual([undefined, 'DIGEST_INVALID', undefined]);
  expect(keyOf(again[0]).keyId).toBe(keyOf(first[0]).keyId);
  const events = await expectWhole(service.store);
  expect(events).toHaveLength(2);
  expect(JSON.parse(events[0]?.cloudEvent ?? '')).toMatchObject({ data: { request_id: requestId } });
});

test('another caller’s import under the same id is no repeat', async () => {
  const { callers, as } = letIn({ first: { roles: ['admin'] }, second: { roles: ['admin'] } });
  await using service = await startServer({ callers });
  for (const metadata of [as.first, as.second]) {
    const request = toImport([anItem()], { actor: undefined, requestId: 'r1' });
    const { results } = await call<ImportKeysResponse>((done) => service.keys.importKeys(request, metadata, done));
    expect(results.map((result) => reasonOf(result))).toEqual([undefined]);
  }
});

test('under a pepper an imported digest verifies, and is stored in no bare form', async () => {
  await using service = await startServer({ peppers: [aPepper(1)] });
  await importKeys(service, [byDigest(sha256(LEGACY))], old);
  expect(await decide(service, bearer(LEGACY), old)).toBe(Decision.VALID);
  const [again] = await importKeys(service, [byDigest(sha256(LEGACY))], old);
  expect(again?.alreadyImported).toBe(true);
});

test('items that the deadline leaves no time for are told as such, and not tried', async () => {
  const breakage: Breakage = {};
  await using service = await startServer({ wrap: (store) => breakable(store, breakage) });
  let changes = 0;
  breakage.before = (name) => {
    if (name !== 'change' || (changes += 1) < 3) return Promise.resolve();
    service.time.monotonicOffsetMs = 60_000;
    return Promise.reject(new StoreFault('unavailable', 'too slow'));
  };
  const results = await importKeys(service, Array.from({ length: 6 }, anItem));
  expect(results.map((result) => reasonOf(result))).toEqual([
    undefined,
    undefined,
    ...Array<string>(4).fill('STORE_UNAVAILABLE'),
  ]);
  expect(changes).toBe(3);
  expect(await expectWhole(service.store)).toHaveLength(2);
});

test('while the audit is too far behind, nothing is imported, and what was imported is answered', async () => {
  let backlogged = false;
  await using service = await startServer({ backlogExceeded: () => backlogged });
  const item = anItem();
  await importKeys(service, [item], { requestId: 'r1' });
  backlogged = true;
  const results = await importKeys(service, [item, anItem()], { requestId: 'r2' });
  expect(results.map((result) => reasonOf(result))).toEqual([undefined, 'AUDIT_BACKLOG']);
  expect(await expectWhole(service.store)).toHaveLength(1);
});

test('no failure, log line, record or event holds a credential that was imported, where it was put or misplaced', async () => {
  await using service = await startServer();
  const canary = `old_${'canary'.repeat(6).slice(0, 32)}`;
  const results = await importKeys(
    service,
    [
      { ...byCredential(bearer(`${canary}x`)), name: 'a' },
      byCredential(bearer(canary)),
      { ...anItem(), type: canary },
      { ...anItem(), scopes: [`${canary} `] },
      { ...anItem(), clientId: canary },
      { ...byDigest(sha256(canary)), display: canary },
    ],
    { ...old, actor: ADA },
  );
  const told = JSON.stringify(results, (_, value: unknown) => (typeof value === 'bigint' ? String(value) : value));
  const events = await expectWhole(service.store, { ...old, organizationId: 'acme' });
  const written = [told, ...service.logged, ...events.map(({ cloudEvent }) => cloudEvent)].join('\n');
  expect(events).toHaveLength(1);
  for (const secret of [canary, 'canary', sha256(canary).toString('hex'), sha256(canary).toString('base64')]) {
    expect(written.replaceAll('old_cana...', '')).not.toContain(secret);
  }
});

async function importKeys(
  service: TestServer,
  items: readonly Partial<ImportKeysItem>[],
  fields: Partial<ImportKeysRequest> = {},
) {
  const request = toImport(items, fields);
  return (await call<ImportKeysResponse>((done) => service.keys.importKeys(request, done))).results;
}

type Result = ImportKeysResponse['results'][number];

function keyOf(result: Result | undefined): Key {
  if (result?.result?.$case === 'key') return result.result.value;
  throw new Error(`no key: ${JSON.stringify(result?.result?.value)}`);
}

function failureOf(result: Result | undefined): Failure {
  if (result?.result?.$case === 'failure') return result.result.value;
  throw new Error('imported instead of refused');
}

function reasonOf(result: Result | undefined): string | undefined {
  return result?.result?.$case === 'failure' ? result.result.value.reason : undefined;
}

async function decide(
  service: TestServer,
  credential: Credential,
  fields: Partial<VerifyKeyRequest> = {},
): Promise<Decision> {
  const request = { ...VerifyKeyRequest.fromPartial({}), credential, ...fields };
  return (await call<VerifyKeyResponse>((done) => service.keys.verifyKey(request, done))).decision;
}
