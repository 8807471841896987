/** Changing keys and organizations, as clients see it: masks, etags, what narrows and what widens. */
import { expect, test } from 'vitest';

import { ActorType } from '../../src/gen/keyreeve/v1/actor.js';
import type { Credential } from '../../src/gen/keyreeve/v1/credential.js';
import { Key, type KeySelector, KeyState } from '../../src/gen/keyreeve/v1/key.js';
import {
  type CreateKeyResponse,
  type GetKeyResponse,
  type RotateKeyResponse,
  type UpdateKeyRequest,
  type UpdateKeyResponse,
  VerifyKeyRequest,
  type VerifyKeyResponse,
} from '../../src/gen/keyreeve/v1/key_service.js';
import { Organization } from '../../src/gen/keyreeve/v1/organization.js';
import type {
  GetOrganizationResponse,
  UpdateOrganizationRequest,
  UpdateOrganizationResponse,
} from '../../src/gen/keyreeve/v1/organization_service.js';
import { Decision } from '../../src/gen/keyreeve/v1/verification.js';
import type { CloudEvent } from '../../src/keys/chain.js';
import { call } from '../support/call.js';
import { expectWhole } from '../support/expect-whole.js';
import {
  create,
  letIn,
  startServer,
  type TestServer,
  toCreate,
  toldBy,
  toRevoke,
  toRotate,
  toUpdate,
  toUpdateOrganization,
} from '../support/grpc-server.js';
import { organizationsOf } from '../support/store-calls.js';

const inSeconds = (n: number) => ({ seconds: BigInt(Math.floor(Date.now() / 1000) + n), nanos: 0 });
const byName = (value: string): KeySelector => ({ selector: { $case: 'name', value } });
const tiered = { keyspace: 'tiered', organizationId: 'acme' };

test('the fields that the mask names are changed, in normal form, and no others', async () => {
  await using service = await startServer();
  const { key } = await create(service, { scopes: ['read'], labels: new Map([['env', 'prod']]) });
  const changes = {
    name: ' Cafe\u0301 ',
    scopes: ['write', 'read', 'write'],
    labels: new Map([['team', 'a']]),
    expireTime: { ...inSeconds(60), nanos: 1_999_999 },
  };
  const updated = await update(service, key, changes);
  const { etag, ...rest } = { ...key, ...changes, name: 'Café', scopes: ['read', 'write'] };
  expect(updated).toMatchObject({ ...rest, expireTime: { ...changes.expireTime, nanos: 1_000_000 } });
  expect(updated.etag).not.toBe(etag);
  expect(await get(service, key)).toEqual(updated);
  // What stands beside the mask is not read.
  const message = { ...Key.fromPartial({}), name: 'not\nread', disabled: true, labels: new Map([['Bad', '']]) };
  const disabled = await update(service, key, { disabled: true }, { key: message });
  expect(disabled).toMatchObject({ name: 'Café', state: KeyState.DISABLED, labels: changes.labels });
  const events = await expectWhole(service.store, key);
  expect(events.map(({ type }) => type)).toEqual(['key.created', 'key.updated', 'key.updated']);
  const { data } = JSON.parse(events[1]?.cloudEvent ?? '') as CloudEvent;
  expect(data.before).toMatchObject({ name: 'ci', scopes: ['read'], labels: { env: 'prod' }, expire_time: null });
  expect(data.after).toMatchObject({ name: 'Café', scopes: ['read', 'write'], labels: { team: 'a' } });
});

test('switching off, shortening and narrowing hold from the answer on, and switching on gives access back', async () => {
  await using service = await startServer();
  const { key, credential } = await create(service, { scopes: ['read', 'write'] });
  const takenAway: [changes: Partial<Key>, then: Decision][] = [
    [{ scopes: ['read'] }, Decision.INSUFFICIENT_SCOPE],
    [{ disabled: true, scopes: ['read', 'write'] }, Decision.DISABLED],
    [{ disabled: false }, Decision.VALID],
  ];
  for (const [changes, decision] of takenAway) {
    const { enforcement } = await tryUpdate(service, key, changes);
    expect(enforcement).toMatchObject({ complete: true, completeByTime: undefined });
    const clearMs = toMs(enforcement?.cachesClearTime) - Date.now();
    expect(clearMs).toBeGreaterThan(0);
    expect(clearMs).toBeLessThanOrEqual(5000);
    expect(await decide(service, credential, ['write'])).toBe(decision);
  }
  await update(service, key, { expireTime: inSeconds(60) });
  service.time.offsetMs = 60_000;
  expect(await decide(service, credential)).toBe(Decision.EXPIRED);
  await update(service, key, { expireTime: undefined });
  expect(await decide(service, credential)).toBe(Decision.VALID);
});

test('an absent key in the request clears what the mask names', async () => {
  await using service = await startServer();
  const { key } = await create(service, { scopes: ['a'], labels: new Map([['a', 'b']]) });
  const updateMask = ['labels', 'scopes', 'name', 'labels'];
  const cleared = await update(service, key, {}, { key: undefined, updateMask });
  expect(cleared).toMatchObject({ name: '', scopes: [], labels: new Map() });
});

test('what is as it was asked to be is not changed: no event, no new etag', async () => {
  await using service = await startServer();
  const { key } = await create(service, { scopes: ['a', 'b'] });
  const asItIs = { name: ' ci', scopes: ['b', 'a'], labels: new Map(), disabled: false, expireTime: undefined };
  expect(await update(service, key, asItIs, { requestId: 'r1' })).toEqual(key);
  expect(await expectWhole(service.store, key)).toHaveLength(1);
});

test('the etag is that of the request alone: a stale one is refused, and of writers that race one wins', async () => {
  await using service = await startServer();
  const { key } = await create(service);
  const inside = { ...Key.fromPartial({}), etag: 'stale', name: 'first' };
  const updated = await update(service, key, { name: 'first' }, { key: inside, etag: key.etag });
  const told = await toldBy(update(service, key, { name: 'second' }, { etag: key.etag }));
  expect(told).toMatchObject({ code: 'ABORTED', reason: 'ETAG_MISMATCH' });
  expect(await get(service, key)).toEqual(updated);
  const racers = Array.from({ length: 10 }, (_, n) => update(service, key, { name: `n${n}` }, { etag: updated.etag }));
  const answers = await Promise.allSettled(racers);
  expect(answers.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
});

test('a name that another key has is refused, one that a rotation or revocation set free is not', async () => {
  await using service = await startServer();
  const named = { keyspace: 'named' };
  const { key: a } = await create(service, { ...named, name: 'a' });
  const { key: b } = await create(service, { ...named, name: 'b' });
  const { key: b2 } = await call<RotateKeyResponse>((done) => service.keys.rotateKey(toRotate(b), done));
  if (!b2) throw new Error('no key');
  const told = await toldBy(update(service, a, { name: 'b' }));
  expect(told).toMatchObject({ code: 'ALREADY_EXISTS', reason: 'NAME_TAKEN' });
  await update(service, b2, { name: 'c' });
  // The superseded key keeps its name, and holds it against nobody.
  expect(await update(service, a, { name: 'b' })).toMatchObject({ name: 'b' });
  await call((done) => service.keys.revokeKey(toRevoke(a), done));
  expect(await update(service, b2, { name: 'b' }, { selector: byName('c') })).toMatchObject({ keyId: b2.keyId });
});

test('a superseded key accepts switching off and an earlier end, and nothing else', async () => {
  await using service = await startServer();
  const { key } = await create(service, { expiration: { $case: 'expireTime', value: inSeconds(1000) } });
  await call((done) => service.keys.rotateKey(toRotate(key), done));
  const before = await get(service, key);
  const refused: Partial<Key>[] = [
    { name: 'other' },
    { scopes: ['a'] },
    { labels: new Map([['a', 'b']]) },
    { expireTime: inSeconds(2000) },
    { expireTime: undefined },
    { disabled: true, name: 'other' },
  ];
  for (const changes of refused) {
    const told = await toldBy(update(service, key, changes));
    expect(told).toMatchObject({ code: 'FAILED_PRECONDITION', reason: 'KEY_SUPERSEDED' });
  }
  expect(await get(service, key)).toEqual(before);
  expect(await update(service, key, { expireTime: inSeconds(500) })).toMatchObject({ state: KeyState.ACTIVE });
  expect(await update(service, key, { disabled: true })).toMatchObject({ state: KeyState.DISABLED });
  expect(await toldBy(update(service, key, { disabled: false }))).toMatchObject({ reason: 'KEY_SUPERSEDED' });
});

test('an update at fault is refused with its reason and field, and nothing changes', async () => {
  await using service = await startServer();
  const { key } = await create(service, { keyspace: 'named', name: 'a' });
  await create(service, { keyspace: 'named', name: 'b' });
  const { key: brief } = await create(service, { keyspace: 'brief' });
  const cases: [what: string, key: Key, Partial<Key>, Partial<UpdateKeyRequest>, reason: string, field?: string][] = [
    ['no mask', key, { name: 'x' }, { updateMask: undefined }, 'UPDATE_MASK_INVALID', 'update_mask'],
    ['an empty mask', key, { name: 'x' }, { updateMask: [] }, 'UPDATE_MASK_INVALID', 'update_mask'],
    ['an unknown path', key, { name: 'x' }, { updateMask: ['name', 'state'] }, 'UPDATE_MASK_INVALID', 'update_mask'],
    ['a wildcard', key, { name: 'x' }, { updateMask: ['*'] }, 'UPDATE_MASK_INVALID', 'update_mask'],
    ['a path in camel case', key, {}, { updateMask: ['expireTime'] }, 'UPDATE_MASK_INVALID', 'update_mask'],
    ['a path within', key, {}, { updateMask: ['labels.a'] }, 'UPDATE_MASK_INVALID', 'update_mask'],
    ['no selector', key, { name: 'x' }, { selector: undefined }, 'SELECTOR_REQUIRED', 'selector'],
    ['no actor', key, { name: 'x' }, { actor: undefined }, 'ACTOR_REQUIRED', 'actor'],
    ['an unknown key', key, { name: 'x' }, { selector: byName('nobody') }, 'KEY_NOT_FOUND'],
    ['another organization’s key', key, { name: 'x' }, { organizationId: 'other' }, 'KEY_NOT_FOUND'],
    ['another keyspace’s key', key, { name: 'x' }, { keyspace: 'shop' }, 'KEY_NOT_FOUND'],
    ['no name where it is required', key, { name: '' }, {}, 'NAME_REQUIRED', 'key.name'],
    ['a name of white space', key, { name: ' ' }, {}, 'NAME_INVALID', 'key.name'],
    ['a name that is taken', key, { name: 'b' }, {}, 'NAME_TAKEN'],
    ['a name that is not UTF-8', key, { name: '\ufffd' }, {}, 'TEXT_INVALID', 'key.name'],
    ['a scope with a space', key, { scopes: ['a b'] }, {}, 'SCOPES_INVALID', 'key.scopes[0]'],
    ['a label key in upper case', key, { labels: new Map([['A', '']]) }, {}, 'LABELS_INVALID', 'key.labels'],
    ['an end in the past', key, { expireTime: inSeconds(-1) }, {}, 'EXPIRATION_INVALID', 'key.expire_time'],
    [
      'an end that is no time',
      key,
      { expireTime: { seconds: 2n ** 62n, nanos: 0 } },
      {},
      'EXPIRATION_INVALID',
      'key.expire_time',
    ],
    [
      'an end beyond the keyspace’s',
      brief,
      { expireTime: inSeconds(3700) },
      {},
      'EXPIRATION_INVALID',
      'key.expire_time',
    ],
    ['no end where there is a latest', brief, { expireTime: undefined }, {}, 'EXPIRATION_INVALID', 'key.expire_time'],
    ['a stale etag', key, { name: 'x' }, { etag: '"stale"' }, 'ETAG_MISMATCH'],
  ];
  const before = await organizationsOf(service.store);
  for (const [what, one, changes, given, reason, field] of cases) {
    const told = await toldBy(update(service, one, changes, { requestId: 'r1', ...given }));
    expect(told, what).toMatchObject({ reason, ...(field !== undefined && { fields: [field] }) });
    expect(await get(service, one), what).toEqual(one);
  }
  expect(await organizationsOf(service.store)).toEqual(before);
  await call((done) => service.keys.revokeKey(toRevoke(key), done));
  const told = await toldBy(update(service, key, { disabled: false }));
  expect(told).toMatchObject({ code: 'FAILED_PRECONDITION', reason: 'KEY_REVOKED' });
});

test('the mask that is refused names what is allowed', async () => {
  await using service = await startServer();
  const { key } = await create(service);
  const answer = update(service, key, {}, { updateMask: ['plan'] });
  await expect(answer).rejects.toThrow('name, labels, scopes, expire_time, disabled');
});

test('a repeated update answers the key as it is now, and another body or caller is no repeat', async () => {
  const { callers, as } = letIn({ first: { roles: ['provisioner'] }, second: { roles: ['provisioner'] } });
  await using service = await startServer({ callers });
  const { key } = await call<CreateKeyResponse>((done) =>
    service.keys.createKey(toCreate({ actor: undefined }), as.first, done),
  );
  if (!key) throw new Error('no key');
  const by = async (metadata: typeof as.first, changes: Partial<Key>) => {
    const request = toUpdate(key, changes, { actor: undefined, requestId: 'r1' });
    return (await call<UpdateKeyResponse>((done) => service.keys.updateKey(request, metadata, done))).key;
  };
  await by(as.first, { name: 'a', scopes: ['x', 'y'] });
  const renamed = await by(as.second, { name: 'b' });
  expect(await by(as.first, { scopes: ['y', 'x'], name: ' a' })).toEqual(renamed);
  expect(await toldBy(by(as.first, { name: 'a' }))).toMatchObject({ reason: 'REQUEST_ID_REUSED' });
  expect(await expectWhole(service.store, key)).toHaveLength(3);
});

test('while the audit is too far behind, what widens is refused, and what narrows or changes nothing goes on', async () => {
  let backlogged = false;
  await using service = await startServer({ backlogExceeded: () => backlogged });
  const { key } = await create(service, {
    scopes: ['a', 'b'],
    expiration: { $case: 'expireTime', value: inSeconds(100) },
  });
  const { key: off } = await create(service);
  await update(service, off, { disabled: true });
  backlogged = true;
  const widening: [Key, Partial<Key>][] = [
    [off, { disabled: false }],
    [key, { scopes: ['a', 'b', 'c'] }],
    [key, { expireTime: inSeconds(200) }],
    [key, { expireTime: undefined }],
    [key, { disabled: true, scopes: ['c'] }],
  ];
  for (const [one, changes] of widening) {
    const told = await toldBy(update(service, one, changes));
    expect(told).toMatchObject({ code: 'UNAVAILABLE', reason: 'AUDIT_BACKLOG' });
  }
  await update(service, off, { disabled: true });
  for (const changes of [{ scopes: ['a'] }, { expireTime: inSeconds(50) }, { name: 'x' }, { disabled: true }]) {
    await update(service, key, changes);
  }
});

test('an organization that was never written has the keyspace’s defaults, and counts its keys once it has some', async () => {
  await using service = await startServer();
  const unwritten = {
    ...tiered,
    plan: 'small',
    suspended: false,
    keyCount: 0,
    createTime: undefined,
    updateTime: undefined,
  };
  const first = await getOrganization(service);
  expect(first).toEqual({ ...unwritten, etag: expect.stringMatching(/./) as string });
  expect(await organizationsOf(service.store)).toEqual([]);
  const { key } = await create(service, tiered);
  const second = await getOrganization(service);
  expect(second).toMatchObject({ keyCount: 1, createTime: key.createTime, updateTime: key.createTime });
  expect(second.etag).toBe(first.etag);
});

test('a plan sets the limit for new keys and takes none away, and an empty one returns to the default', async () => {
  await using service = await startServer();
  const first = await create(service, tiered);
  expect(await toldBy(create(service, tiered))).toMatchObject({ metadata: { limit: '1', plan: 'small' } });
  const before = await getOrganization(service);
  const large = await updateOrganization(service, { plan: 'large' }, { etag: before.etag });
  expect(large.organization).toMatchObject({ plan: 'large', keyCount: 1 });
  expect(large.organization?.etag).not.toBe(before.etag);
  const second = await create(service, tiered);
  const small = await updateOrganization(service, { plan: '' });
  expect(small.organization).toMatchObject({ plan: 'small', keyCount: 2 });
  expect(await decide(service, first.credential)).toBe(Decision.VALID);
  expect(await decide(service, second.credential)).toBe(Decision.VALID);
  expect(await toldBy(create(service, tiered))).toMatchObject({
    reason: 'KEY_LIMIT_REACHED',
    metadata: { limit: '1', plan: 'small' },
  });
  const events = await expectWhole(service.store, tiered);
  expect(events.map(({ type }) => type)).toEqual([
    'key.created',
    'organization.updated',
    'key.created',
    'organization.updated',
  ]);
  const { subject, data } = JSON.parse(events[1]?.cloudEvent ?? '') as CloudEvent;
  expect(subject).toBe('tiered/acme');
  expect(data).toMatchObject({ before: { plan: 'small' }, after: { plan: 'large' }, actor: { id: 'ada' } });
});

test('a suspension denies every key from its answer on, suspending twice changes nothing, and lifting it gives back', async () => {
  await using service = await startServer();
  const { credential } = await create(service, tiered);
  const { organization, enforcement } = await updateOrganization(service, { suspended: true });
  expect(enforcement?.complete).toBe(true);
  // By the plan without a rate limit: the organization may have had it until just now.
  const clearMs = toMs(enforcement?.cachesClearTime) - Date.now();
  expect(clearMs).toBeGreaterThan(5000);
  expect(clearMs).toBeLessThanOrEqual(10_000);
  expect(await decide(service, credential)).toBe(Decision.ORGANIZATION_SUSPENDED);
  expect(await toldBy(create(service, tiered))).toMatchObject({
    code: 'FAILED_PRECONDITION',
    reason: 'ORGANIZATION_SUSPENDED',
  });
  const twice = await updateOrganization(service, { suspended: true }, { etag: organization?.etag ?? '' });
  expect(twice.organization).toEqual(organization);
  expect(await expectWhole(service.store, tiered)).toHaveLength(2);
  await updateOrganization(service, { suspended: false });
  expect(await decide(service, credential)).toBe(Decision.VALID);
});

test('an organization without keys can be given a plan, and that is written', async () => {
  await using service = await startServer();
  const { organization } = await updateOrganization(service, { plan: 'large', suspended: true }, { requestId: 'r1' });
  expect(organization).toMatchObject({ plan: 'large', suspended: true, keyCount: 0 });
  expect(organization?.createTime).toBeDefined();
  expect(await getOrganization(service)).toEqual(organization);
  const repeat = await updateOrganization(service, { plan: 'large', suspended: true }, { requestId: 'r1' });
  expect(repeat.organization).toEqual(organization);
});

test('an organization’s update at fault is refused with its reason, and nothing changes', async () => {
  const { callers, as } = letIn({ root: { roles: ['admin'], mayAssertActor: true } });
  await using service = await startServer({ callers });
  const changing = (changes: object, given: Partial<UpdateOrganizationRequest> = {}) => {
    const request = toUpdateOrganization(changes, given);
    return call<UpdateOrganizationResponse>((done) => service.organizations.updateOrganization(request, as.root, done));
  };
  await changing({ plan: 'large' }, { requestId: 'taken' });
  const before = await organizationsOf(service.store);
  const cases: [what: string, object, Partial<UpdateOrganizationRequest>, reason: string, field?: string][] = [
    ['an unknown plan', { plan: 'gold' }, {}, 'PLAN_UNKNOWN', 'organization.plan'],
    ['a plan by the name of a property', { plan: 'constructor' }, {}, 'PLAN_UNKNOWN', 'organization.plan'],
    ['a plan that is not UTF-8', { plan: '\ufffd' }, {}, 'TEXT_INVALID', 'organization.plan'],
    ['no mask', { plan: 'small' }, { updateMask: undefined }, 'UPDATE_MASK_INVALID', 'update_mask'],
    ['an empty mask', { plan: 'small' }, { updateMask: [] }, 'UPDATE_MASK_INVALID', 'update_mask'],
    ['an unknown path', {}, { updateMask: ['plan', 'key_count'] }, 'UPDATE_MASK_INVALID', 'update_mask'],
    ['a stale etag', { plan: 'small' }, { etag: '"x"' }, 'ETAG_MISMATCH'],
    ['no keyspace', { plan: 'small' }, { keyspace: '' }, 'KEYSPACE_REQUIRED', 'keyspace'],
    ['an unknown keyspace', { plan: 'small' }, { keyspace: 'nowhere' }, 'KEYSPACE_NOT_FOUND'],
    ['no organization', { plan: 'small' }, { organizationId: '' }, 'ORGANIZATION_ID_INVALID', 'organization_id'],
    ['no actor', { plan: 'small' }, { actor: undefined }, 'ACTOR_REQUIRED', 'actor'],
    [
      'an actor without the permission',
      { suspended: true },
      { keyspace: 'guarded', actor: { type: ActorType.USER, id: 'eve', permissions: [] } },
      'ACTOR_NOT_ALLOWED',
    ],
    ['another body under the same request id', { plan: 'small' }, { requestId: 'taken' }, 'REQUEST_ID_REUSED'],
  ];
  for (const [what, changes, given, reason, field] of cases) {
    const told = await toldBy(changing(changes, given));
    expect(told, what).toMatchObject({ reason, ...(field !== undefined && { fields: [field] }) });
  }
  expect(await organizationsOf(service.store)).toEqual(before);
});

test('while the audit is too far behind, suspending and a smaller plan go on, lifting and a larger plan do not', async () => {
  let backlogged = false;
  await using service = await startServer({ backlogExceeded: () => backlogged });
  await updateOrganization(service, { plan: 'large' });
  backlogged = true;
  await updateOrganization(service, { suspended: true });
  await updateOrganization(service, { suspended: true });
  for (const changes of [{ suspended: false }, { plan: 'small' }]) {
    // Fewer keys, but no rate limit any more: a plan that is larger in either widens.
    expect(await toldBy(updateOrganization(service, changes))).toMatchObject({ reason: 'AUDIT_BACKLOG' });
  }
});

async function update(service: TestServer, ...request: Parameters<typeof toUpdate>): Promise<Key> {
  const { key } = await tryUpdate(service, ...request);
  if (!key) throw new Error('an update was answered without its key');
  return key;
}

function tryUpdate(service: TestServer, ...request: Parameters<typeof toUpdate>): Promise<UpdateKeyResponse> {
  return call((done) => service.keys.updateKey(toUpdate(...request), done));
}

function updateOrganization(
  service: TestServer,
  ...request: Parameters<typeof toUpdateOrganization>
): Promise<UpdateOrganizationResponse> {
  return call((done) => service.organizations.updateOrganization(toUpdateOrganization(...request), done));
}

async function getOrganization(service: TestServer): Promise<Organization> {
  const { organization } = await call<GetOrganizationResponse>((done) =>
    service.organizations.getOrganization(tiered, done),
  );
  return organization ?? Organization.fromPartial({});
}

async function get(service: TestServer, { keyspace, organizationId, keyId }: Key) {
  const selector: KeySelector = { selector: { $case: 'keyId', value: keyId } };
  const { key } = await call<GetKeyResponse>((done) =>
    service.keys.getKey({ keyspace, organizationId, selector }, done),
  );
  return key;
}

async function decide(service: TestServer, credential: Credential, requiredScopes: string[] = []): Promise<Decision> {
  const request = { ...VerifyKeyRequest.fromPartial({}), credential, requiredScopes };
  return (await call<VerifyKeyResponse>((done) => service.keys.verifyKey(request, done))).decision;
}

function toMs(time: { seconds: bigint; nanos: number } | undefined): number {
  if (!time) throw new Error('no time');
  return Number(time.seconds) * 1000 + time.nanos / 1_000_000;
}
