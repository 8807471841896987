/** Each kind of bad input has its reason, changes nothing, and leaves the service healthy. */
import { afterAll, beforeAll, expect, test } from 'vitest';

import { ActorType } from '../../src/gen/keyreeve/v1/actor.js';
import { ListAuditEventsRequest } from '../../src/gen/keyreeve/v1/audit_service.js';
import type { KeySelector } from '../../src/gen/keyreeve/v1/key.js';
import {
  type CreateKeyRequest,
  GetKeyRequest,
  type GetKeyResponse,
  ListKeysRequest,
  type RevokeKeyRequest,
  VerifyKeyRequest,
} from '../../src/gen/keyreeve/v1/key_service.js';
import { newKeyId } from '../../src/keys/ids.js';
import { call } from '../support/call.js';
import {
  ADA,
  create,
  errorOf,
  startServer,
  type TestServer,
  toCreate,
  toldBy,
  toRevoke,
} from '../support/grpc-server.js';
import { organizationsOf } from '../support/store-calls.js';

let service: TestServer;
beforeAll(async () => {
  service = await startServer();
});
afterAll(() => service[Symbol.asyncDispose]());

const at = (ms: number) => ({ seconds: BigInt(Math.floor((Date.now() + ms) / 1000)), nanos: 0 });
const expireTime = (seconds: bigint, nanos = 0) => ({ $case: 'expireTime' as const, value: { seconds, nanos } });
const ttl = (seconds: bigint, nanos = 0) => ({ $case: 'ttl' as const, value: { seconds, nanos } });
const actor = (fields: Partial<typeof ADA>) => ({ actor: { ...ADA, ...fields } });

const creates: Record<string, [Partial<CreateKeyRequest>, reason: string, field?: string]> = {
  'no keyspace': [{ keyspace: '' }, 'KEYSPACE_REQUIRED', 'keyspace'],
  'an unknown keyspace': [{ keyspace: 'nowhere' }, 'KEYSPACE_NOT_FOUND'],
  'a keyspace with the name of a property': [{ keyspace: 'constructor' }, 'KEYSPACE_NOT_FOUND'],
  'no organization': [{ organizationId: '' }, 'ORGANIZATION_ID_INVALID', 'organization_id'],
  'an organization with a slash': [{ organizationId: 'a/b' }, 'ORGANIZATION_ID_INVALID', 'organization_id'],
  'an organization of 129 characters': [{ organizationId: 'a'.repeat(129) }, 'ORGANIZATION_ID_INVALID'],
  'no actor': [{ actor: undefined }, 'ACTOR_REQUIRED', 'actor'],
  'an actor without type': [actor({ type: ActorType.UNSPECIFIED }), 'ACTOR_REQUIRED', 'actor'],
  'an actor of an unknown type': [actor({ type: ActorType.UNRECOGNIZED }), 'ACTOR_REQUIRED', 'actor'],
  'an actor without id': [actor({ id: '' }), 'ACTOR_REQUIRED', 'actor'],
  'an actor whose id is white space': [actor({ id: ' \t ' }), 'ACTOR_REQUIRED', 'actor'],
  'an actor whose id has 201 characters': [actor({ id: 'a'.repeat(201) }), 'TEXT_INVALID', 'actor.id'],
  'an actor whose id has a control character': [actor({ id: 'a\u0000b' }), 'TEXT_INVALID', 'actor.id'],
  'an actor with 201 permissions': [
    actor({ permissions: Array.from({ length: 201 }, (_, n) => `p${n}`) }),
    'TEXT_INVALID',
    'actor.permissions',
  ],
  'the actor SYSTEM': [actor({ type: ActorType.SYSTEM }), 'ACTOR_NOT_ALLOWED'],
  'an actor without the permission': [
    { keyspace: 'guarded', ...actor({ permissions: ['keys.read'] }) },
    'ACTOR_NOT_ALLOWED',
  ],
  'a request id with a space': [{ requestId: 'a b' }, 'REQUEST_ID_INVALID', 'request_id'],
  'a request id of 129 characters': [{ requestId: 'a'.repeat(129) }, 'REQUEST_ID_INVALID', 'request_id'],
  'no name where it is required': [{ keyspace: 'named', name: '' }, 'NAME_REQUIRED', 'name'],
  'a name of white space': [{ name: '   ' }, 'NAME_INVALID', 'name'],
  'a name of 201 characters': [{ name: '𝕏'.repeat(201) }, 'NAME_INVALID', 'name'],
  'a name with a control character': [{ name: 'a\u0007b' }, 'NAME_INVALID', 'name'],
  'a name with a line break': [{ name: 'a\nb' }, 'NAME_INVALID', 'name'],
  'an unknown type': [{ keyspace: 'named', type: 'AZURE' }, 'TYPE_INVALID', 'type'],
  'a type where there are none': [{ type: 'AWS' }, 'TYPE_INVALID', 'type'],
  'an expiry in the past': [
    { expiration: { $case: 'expireTime', value: at(-1000) } },
    'EXPIRATION_INVALID',
    'expire_time',
  ],
  'an expiry before the year 1': [{ expiration: expireTime(-62_135_596_801n) }, 'EXPIRATION_INVALID', 'expire_time'],
  'an expiry in the year 10000': [{ expiration: expireTime(253_402_300_800n) }, 'EXPIRATION_INVALID', 'expire_time'],
  'an expiry at the end of numbers': [{ expiration: expireTime(2n ** 63n - 1n) }, 'EXPIRATION_INVALID', 'expire_time'],
  'an expiry with negative nanos': [
    { expiration: expireTime(4_000_000_000n, -1) },
    'EXPIRATION_INVALID',
    'expire_time',
  ],
  'an expiry with a second of nanos': [
    { expiration: expireTime(4_000_000_000n, 1_000_000_000) },
    'EXPIRATION_INVALID',
    'expire_time',
  ],
  'a lifetime of 0': [{ expiration: ttl(0n) }, 'EXPIRATION_INVALID', 'ttl'],
  'a lifetime below a millisecond': [{ expiration: ttl(0n, 999_999) }, 'EXPIRATION_INVALID', 'ttl'],
  'a negative lifetime': [{ expiration: ttl(-1n) }, 'EXPIRATION_INVALID', 'ttl'],
  'a lifetime at the end of numbers': [{ expiration: ttl(2n ** 63n - 1n) }, 'EXPIRATION_INVALID', 'ttl'],
  'a lifetime with mixed signs': [{ expiration: ttl(5n, -1) }, 'EXPIRATION_INVALID', 'ttl'],
  'a lifetime beyond the year 10000': [{ expiration: ttl(315_576_000_000n) }, 'EXPIRATION_INVALID', 'ttl'],
  'a lifetime beyond the keyspace’s': [{ keyspace: 'brief', expiration: ttl(3601n) }, 'EXPIRATION_INVALID', 'ttl'],
  'a scope with a space': [{ scopes: ['ok', 'not ok'] }, 'SCOPES_INVALID', 'scopes[1]'],
  '51 scopes': [{ scopes: Array.from({ length: 51 }, (_, n) => `s${n}`) }, 'SCOPES_INVALID', 'scopes'],
  'a label key in upper case': [{ labels: new Map([['Env', 'prod']]) }, 'LABELS_INVALID', 'labels'],
  'a label key of a property': [{ labels: new Map([['__proto__', 'x']]) }, 'LABELS_INVALID', 'labels'],
  'a label with a control character': [{ labels: new Map([['env', 'a\u0000']]) }, 'LABELS_INVALID', 'labels'],
  'labels of 3,001 bytes': [{ labels: new Map([['e', 'x'.repeat(3000)]]) }, 'LABELS_INVALID', 'labels'],
  'a name that is not UTF-8': [{ name: 'a\ufffd' }, 'TEXT_INVALID', 'name'],
  'an organization that is not UTF-8': [{ organizationId: '\ufffd' }, 'TEXT_INVALID', 'organization_id'],
  'a scope that is not UTF-8': [{ scopes: ['a', '\ufffd'] }, 'TEXT_INVALID', 'scopes[1]'],
  'a label key that is not UTF-8': [{ labels: new Map([['\ufffd', 'x']]) }, 'TEXT_INVALID', 'labels'],
  'an actor that is not UTF-8': [actor({ id: '\ufffd' }), 'TEXT_INVALID', 'actor.id'],
};

test.for(Object.entries(creates))('creating is refused with its reason for %s', async ([, [fields, reason, field]]) => {
  const before = await organizationsOf(service.store);
  const told = await toldBy(call((done) => service.keys.createKey(toCreate(fields), done)));
  expect(told).toMatchObject({ code: codeOf(reason), reason, domain: 'keyreeve' });
  if (field !== undefined) expect(told.fields).toEqual([field]);
  expect(await organizationsOf(service.store)).toEqual(before);
});

const selectors: Record<string, [KeySelector | undefined, reason: string]> = {
  'no selector': [undefined, 'SELECTOR_REQUIRED'],
  'an empty selector': [{ selector: undefined }, 'SELECTOR_REQUIRED'],
  'an empty key id': [{ selector: { $case: 'keyId', value: '' } }, 'SELECTOR_REQUIRED'],
  'an empty name': [{ selector: { $case: 'name', value: '' } }, 'SELECTOR_REQUIRED'],
  'an empty client id': [{ selector: { $case: 'clientId', value: '' } }, 'SELECTOR_REQUIRED'],
  'an unknown key id': [{ selector: { $case: 'keyId', value: newKeyId() } }, 'KEY_NOT_FOUND'],
  'a malformed key id': [{ selector: { $case: 'keyId', value: "key_' OR 1=1" } }, 'KEY_NOT_FOUND'],
  'an unknown name': [{ selector: { $case: 'name', value: 'nobody' } }, 'KEY_NOT_FOUND'],
  'a name that none can have': [{ selector: { $case: 'name', value: 'a\u0000b' } }, 'KEY_NOT_FOUND'],
  'a client id of 100 KiB': [{ selector: { $case: 'clientId', value: 'c'.repeat(100_000) } }, 'KEY_NOT_FOUND'],
  'a client id with a zero byte': [{ selector: { $case: 'clientId', value: 'client_\u0000' } }, 'KEY_NOT_FOUND'],
  'a name that is not UTF-8': [{ selector: { $case: 'name', value: '\ufffd' } }, 'TEXT_INVALID'],
};

test.for(Object.entries(selectors))(
  'getting and revoking are refused with their reason for %s',
  async ([, [selector, reason]]) => {
    const get = { ...GetKeyRequest.fromPartial({}), keyspace: 'shop', organizationId: 'acme', selector };
    expect(await toldBy(call((done) => service.keys.getKey(get, done)))).toMatchObject({
      code: codeOf(reason),
      reason,
    });
    const request = toRevoke({ keyspace: 'shop', organizationId: 'acme', keyId: '' }, { selector });
    expect(await toldBy(call((done) => service.keys.revokeKey(request, done)))).toMatchObject({
      code: codeOf(reason),
      reason,
    });
  },
);

const revokes: Record<string, [Partial<RevokeKeyRequest>, reason: string]> = {
  'no keyspace': [{ keyspace: '' }, 'KEYSPACE_REQUIRED'],
  'an unknown keyspace': [{ keyspace: 'nowhere' }, 'KEYSPACE_NOT_FOUND'],
  'no organization': [{ organizationId: '' }, 'ORGANIZATION_ID_INVALID'],
  'no actor': [{ actor: undefined }, 'ACTOR_REQUIRED'],
  'a request id that is no ASCII': [{ requestId: 'ü' }, 'REQUEST_ID_INVALID'],
  'a detail of 501 characters': [{ reasonDetail: 'a'.repeat(501) }, 'TEXT_INVALID'],
  'a detail with a control character': [{ reasonDetail: 'a\u0000' }, 'TEXT_INVALID'],
  'another organization’s key': [{ organizationId: 'other' }, 'KEY_NOT_FOUND'],
  'another keyspace’s key': [{ keyspace: 'limited' }, 'KEY_NOT_FOUND'],
};

test.for(Object.entries(revokes))('revoking is refused with its reason for %s', async ([, [fields, reason]]) => {
  const { key } = await create(service);
  const told = await toldBy(call((done) => service.keys.revokeKey(toRevoke(key, fields), done)));
  expect(told).toMatchObject({ code: codeOf(reason), reason });
  const stored = await call<GetKeyResponse>((done) => service.keys.getKey(toGet(key), done));
  expect(stored.key).toEqual(key);
});

const lists: Record<string, [Partial<ListKeysRequest>, reason: string]> = {
  'no keyspace': [{ keyspace: '' }, 'KEYSPACE_REQUIRED'],
  'an unknown keyspace': [{ keyspace: 'nowhere' }, 'KEYSPACE_NOT_FOUND'],
  'no organization': [{ organizationId: '' }, 'ORGANIZATION_ID_INVALID'],
  'a negative page size': [{ pageSize: -1 }, 'PAGE_SIZE_INVALID'],
  'a page token that is text': [{ pageToken: 'next' }, 'PAGE_TOKEN_INVALID'],
  'a page token of 100 KiB': [{ pageToken: 'A'.repeat(100_000) }, 'PAGE_TOKEN_INVALID'],
  'a page token of zeros': [{ pageToken: Buffer.alloc(32).toString('base64url') }, 'PAGE_TOKEN_INVALID'],
};

test.for(Object.entries(lists))('listing is refused with its reason for %s', async ([, [fields, reason]]) => {
  const request = { ...ListKeysRequest.fromPartial({}), keyspace: 'shop', organizationId: 'acme', ...fields };
  expect(await toldBy(call((done) => service.keys.listKeys(request, done)))).toMatchObject({
    code: codeOf(reason),
    reason,
  });
  const events = { ...ListAuditEventsRequest.fromPartial({}), ...request, types: [] };
  expect(await toldBy(call((done) => service.audit.listAuditEvents(events, done)))).toMatchObject({ reason });
});

const verifications: Record<string, [Partial<VerifyKeyRequest>, reason: string]> = {
  'an unknown keyspace': [{ keyspace: 'nowhere' }, 'KEYSPACE_NOT_FOUND'],
  'a pair without keyspace': [
    { credential: { kind: { $case: 'client', value: { clientId: 'a', secret: 'b' } } } },
    'KEYSPACE_REQUIRED',
  ],
  'a malformed organization': [{ organizationId: 'a b' }, 'ORGANIZATION_ID_INVALID'],
  'a malformed scope': [{ requiredScopes: [''] }, 'SCOPES_INVALID'],
  'an organization that is not UTF-8': [{ organizationId: '\ufffd' }, 'TEXT_INVALID'],
};

test.for(Object.entries(verifications))('verifying is refused with its reason for %s', async ([, [fields, reason]]) => {
  const request = { ...VerifyKeyRequest.fromPartial({}), ...fields };
  expect(await toldBy(call((done) => service.keys.verifyKey(request, done)))).toMatchObject({
    code: codeOf(reason),
    reason,
  });
});

test('a refusal never repeats what was sent', async () => {
  const canary = `shop_${'canary'.repeat(8)}`;
  for (const fields of [
    { keyspace: canary },
    { organizationId: `${canary}!` },
    { requestId: `${canary} ` },
    { name: `${canary}\u0000` },
    { type: canary },
    { scopes: [`${canary}!`] },
    { labels: new Map([[`${canary}!`, canary]]) },
    { labels: new Map([['env', `${canary}\u0000`]]) },
  ]) {
    const error = await errorOf(call((done) => service.keys.createKey(toCreate(fields), done)));
    expect(
      `${error.message} ${JSON.stringify(error)} ${error.metadata.get('grpc-status-details-bin').join('')}`,
    ).not.toContain('canary');
  }
  expect(service.logged.join('')).not.toContain('canary');
});

function toGet({
  keyspace,
  organizationId,
  keyId,
}: {
  keyspace: string;
  organizationId: string;
  keyId: string;
}): GetKeyRequest {
  return { keyspace, organizationId, selector: { selector: { $case: 'keyId', value: keyId } } };
}

function codeOf(reason: string): string {
  if (reason.endsWith('_NOT_FOUND')) return 'NOT_FOUND';
  return reason === 'ACTOR_NOT_ALLOWED' ? 'PERMISSION_DENIED' : 'INVALID_ARGUMENT';
}
