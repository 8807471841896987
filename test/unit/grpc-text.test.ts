import { expect, test } from 'vitest';

import { CheckRequest } from '../../src/gen/envoy/service/auth/v3/external_auth.js';
import {
  CreateKeyRequest,
  GetKeyRequest,
  ImportKeysItem,
  ImportKeysRequest,
  VerifyKeyRequest,
} from '../../src/gen/keyreeve/v1/key_service.js';
import { checkText } from '../../src/grpc/text.js';

const BAD = 'a\ufffdb';

test.for<[field: string, request: object]>([
  ['keyspace', { ...CreateKeyRequest.fromPartial({}), keyspace: BAD }],
  ['organization_id', { ...CreateKeyRequest.fromPartial({}), organizationId: BAD }],
  [
    'actor.permissions[1]',
    { ...CreateKeyRequest.fromPartial({}), actor: { type: 1, id: 'a', permissions: ['', BAD] } },
  ],
  ['labels', { ...CreateKeyRequest.fromPartial({}), labels: new Map([[BAD, '']]) }],
  ['labels', { ...CreateKeyRequest.fromPartial({}), labels: new Map([['a', BAD]]) }],
  [
    'selector.client_id',
    { ...GetKeyRequest.fromPartial({}), selector: { selector: { $case: 'clientId', value: BAD } } },
  ],
  ['required_scopes[0]', { ...VerifyKeyRequest.fromPartial({}), requiredScopes: [BAD] }],
])('text that is not UTF-8 is found in %s, by the name that the proto gives it', ([field, request]) => {
  const refusal = checkText(request);
  expect(refusal).toMatchObject({ refused: 'TEXT_INVALID', field });
  expect(JSON.stringify(refusal)).not.toContain(BAD);
});

test('text of any other kind passes, and a credential is not looked into', () => {
  const credential = { kind: { $case: 'bearerToken' as const, value: BAD } };
  expect(checkText({ ...VerifyKeyRequest.fromPartial({}), credential, organizationId: 'é𝕏\u0000' })).toBeUndefined();
});

test('an item of several is not looked into with the request, but by itself, its credential aside', () => {
  const item = ImportKeysItem.fromPartial({ name: BAD });
  expect(checkText(ImportKeysRequest.fromPartial({ keys: [item] }))).toBeUndefined();
  expect(checkText(ImportKeysRequest.fromPartial({ keys: [item], requestId: BAD }))).toMatchObject({
    field: 'request_id',
  });
  expect(checkText(item)).toMatchObject({ refused: 'TEXT_INVALID', field: 'name' });
  const credential = { kind: { $case: 'bearerToken' as const, value: BAD } };
  expect(checkText(ImportKeysItem.fromPartial({ secret: { $case: 'credential', value: credential } }))).toBeUndefined();
});

test('a gateway’s request is never refused for what a client sends in its headers', () => {
  const http = { headers: new Map([['user-agent', BAD]]) };
  const request = CheckRequest.fromPartial({
    attributes: { request: { http }, contextExtensions: new Map([[BAD, BAD]]) },
  });
  expect(checkText(request)).toBeUndefined();
});
