/** Who may do what, and that a caller learns nothing about what is not its own. */
import { inspect } from 'node:util';
import { Metadata } from '@grpc/grpc-js';
import { expect, test } from 'vitest';

import { type Actor, ActorType } from '../../src/gen/keyreeve/v1/actor.js';
import { ListAuditEventsRequest, type ListAuditEventsResponse } from '../../src/gen/keyreeve/v1/audit_service.js';
import {
  type CreateKeyRequest,
  type CreateKeyResponse,
  GetKeyRequest,
  ImportKeysItem,
  ImportKeysRequest,
  ListKeysRequest,
  RevokeKeyRequest,
  RotateKeyRequest,
  UpdateKeyRequest,
  VerifyKeyRequest,
  type VerifyKeyResponse,
} from '../../src/gen/keyreeve/v1/key_service.js';
import {
  type GetOrganizationResponse,
  UpdateOrganizationRequest,
} from '../../src/gen/keyreeve/v1/organization_service.js';
import { Decision } from '../../src/gen/keyreeve/v1/verification.js';
import { newKeyId } from '../../src/keys/ids.js';
import { GENESIS_HASH } from '../../src/keys/organization.js';
import { call } from '../support/call.js';
import {
  ADA,
  create,
  errorOf,
  letIn,
  startServer,
  type TestServer,
  toCreate,
  toldBy,
  withToken,
} from '../support/grpc-server.js';
import { organizationsOf } from '../support/store-calls.js';

interface Tenant {
  keyspace: string;
  organizationId: string;
}

type CallName =
  | 'CreateKey'
  | 'GetKey'
  | 'ListKeys'
  | 'UpdateKey'
  | 'RevokeKey'
  | 'RotateKey'
  | 'VerifyKey'
  | 'ImportKeys'
  | 'GetOrganization'
  | 'UpdateOrganization'
  | 'ListAuditEvents';
type Make = (service: TestServer, tenant: Tenant, as: Metadata, fields?: object) => Promise<unknown>;

/** Every call of this version, by name. */
const CALLS: Record<CallName, Make> = {
  CreateKey: ({ keys }, tenant, as, fields) =>
    call((done) => keys.createKey({ ...toCreate({ ...tenant, actor: undefined }), ...fields }, as, done)),
  GetKey: ({ keys }, tenant, as, fields) =>
    call((done) => keys.getKey({ ...GetKeyRequest.fromPartial({}), ...byId, ...tenant, ...fields }, as, done)),
  ListKeys: ({ keys }, tenant, as, fields) =>
    call((done) => keys.listKeys({ ...ListKeysRequest.fromPartial({}), ...tenant, ...fields }, as, done)),
  RevokeKey: ({ keys }, tenant, as, fields) =>
    call((done) => keys.revokeKey({ ...RevokeKeyRequest.fromPartial({}), ...byId, ...tenant, ...fields }, as, done)),
  UpdateKey: ({ keys }, tenant, as, fields) =>
    call((done) =>
      keys.updateKey(
        { ...UpdateKeyRequest.fromPartial({ updateMask: ['disabled'] }), ...byId, ...tenant, ...fields },
        as,
        done,
      ),
    ),
  RotateKey: ({ keys }, tenant, as, fields) =>
    call((done) => keys.rotateKey({ ...RotateKeyRequest.fromPartial({}), ...byId, ...tenant, ...fields }, as, done)),
  ImportKeys: ({ keys }, tenant, as, fields) =>
    call((done) => keys.importKeys({ ...ImportKeysRequest.fromPartial({}), ...tenant, ...fields }, as, done)),
  GetOrganization: ({ organizations }, tenant, as, fields) =>
    call((done) => organizations.getOrganization({ ...tenant, ...fields }, as, done)),
  UpdateOrganization: ({ organizations }, tenant, as, fields) =>
    call((done) =>
      organizations.updateOrganization(
        {
          ...UpdateOrganizationRequest.fromPartial({ updateMask: ['suspended'] }),
          organization: undefined,
          ...tenant,
          ...fields,
        },
        as,
        done,
      ),
    ),
  VerifyKey: ({ keys }, tenant, as, fields) =>
    call((done) => keys.verifyKey({ ...VerifyKeyRequest.fromPartial({}), ...tenant, ...fields }, as, done)),
  ListAuditEvents: ({ audit }, tenant, as, fields) =>
    call((done) =>
      audit.listAuditEvents({ ...ListAuditEventsRequest.fromPartial({}), ...tenant, ...fields }, as, done),
    ),
};
const CALL_NAMES = Object.keys(CALLS) as CallName[];

const byId = { selector: { selector: { $case: 'keyId' as const, value: newKeyId() } } };
const acme: Tenant = { keyspace: 'shop', organizationId: 'acme' };

test('without callers everyone is the caller local, whatever token they send', async () => {
  await using service = await startServer();
  const { key } = await create(service);
  const answer = await CALLS.ListKeys(service, acme, withToken('anything'));
  expect(answer).toMatchObject({ keys: [{ keyId: key.keyId }] });
});

test.for(['nothing', 'an empty header', 'a wrong token', 'another scheme', 'the token alone', 'two tokens'])(
  'where callers are known, %s is turned away, and no reason is told beyond that',
  async (sent) => {
    const { callers, as } = letIn({ admin: { roles: ['admin'] } });
    await using service = await startServer({ callers });
    const [known] = as.admin.get('authorization');
    const token = String(known).replace('Bearer ', '');
    const header = {
      nothing: undefined,
      'an empty header': '',
      'a wrong token': `Bearer ${token}x`,
      'another scheme': `Basic ${token}`,
      'the token alone': token,
      'two tokens': `Bearer ${token} ${token}`,
    }[sent];
    const metadata = new Metadata();
    if (header !== undefined) metadata.set('authorization', header);
    for (const name of CALL_NAMES) {
      expect(await toldBy(CALLS[name](service, acme, metadata))).toEqual({
        code: 'UNAUTHENTICATED',
        reason: 'CALLER_UNKNOWN',
        domain: 'keyreeve',
        metadata: {},
      });
    }
    expect(service.logged.join('')).not.toContain(token);
    expect(await organizationsOf(service.store)).toEqual([]);
  },
);

const ROLES_OF: Record<CallName, readonly string[]> = {
  CreateKey: ['provisioner', 'admin'],
  GetKey: ['provisioner', 'auditor', 'admin'],
  ListKeys: ['provisioner', 'auditor', 'admin'],
  UpdateKey: ['provisioner', 'admin'],
  RevokeKey: ['provisioner', 'admin'],
  RotateKey: ['provisioner', 'admin'],
  VerifyKey: ['verifier', 'admin'],
  ImportKeys: ['admin'],
  GetOrganization: ['provisioner', 'auditor', 'admin'],
  UpdateOrganization: ['admin'],
  ListAuditEvents: ['auditor', 'admin'],
};

test('each role may make its calls and no others', async () => {
  const { callers, as } = letIn({
    verifier: { roles: ['verifier'] },
    provisioner: { roles: ['provisioner'] },
    auditor: { roles: ['auditor'] },
    admin: { roles: ['admin'] },
  });
  await using service = await startServer({ callers });
  for (const name of CALL_NAMES) {
    for (const [role, metadata] of Object.entries(as)) {
      const outcome = await reasonOf(CALLS[name](service, acme, metadata));
      const denied = !ROLES_OF[name].includes(role);
      expect(`${name} ${role} ${String(outcome === 'CALLER_NOT_ALLOWED')}`).toBe(`${name} ${role} ${String(denied)}`);
    }
  }
});

test('what lies outside of the policy answers as what does not exist, byte for byte', async () => {
  const { callers, as } = letIn({
    all: { roles: ['admin'] },
    guest: { roles: ['verifier', 'provisioner', 'auditor', 'admin'], keyspaces: ['shop'], organizations: ['acme'] },
  });
  await using service = await startServer({ callers });
  const hidden = await createBy(service, as.all, { organizationId: 'hidden' });
  await createBy(service, as.all, { keyspace: 'named' });
  const theirs = { selector: { selector: { $case: 'keyId' as const, value: hidden.keyId } } };
  const pairs: [hidden: Tenant, absent: Tenant][] = [
    [
      { keyspace: 'named', organizationId: 'acme' },
      { keyspace: 'nowhere', organizationId: 'acme' },
    ],
    [
      { keyspace: 'shop', organizationId: 'hidden' },
      { keyspace: 'shop', organizationId: 'nobody' },
    ],
  ];
  // Also with something else wrong: what is checked first must not tell.
  const variants = [
    {},
    theirs,
    { selector: undefined },
    { selector: { selector: { $case: 'name', value: 'ci' } } },
    { organizationId: '/' },
    { actor: ADA },
    { requestId: ' ' },
    { name: '' },
    { pageSize: -1 },
    { pageToken: 'x' },
    { states: [99] },
    { types: ['GENERIC'] },
    { requiredScopes: [' '] },
    { keyId: hidden.keyId },
    { updateMask: [] },
    { etag: 'x' },
    { overlap: { seconds: -1n, nanos: 0 } },
    { keys: [ImportKeysItem.fromPartial({ secret: { $case: 'digest', value: Buffer.alloc(32) } })] },
    { keys: Array.from({ length: 501 }, () => ImportKeysItem.fromPartial({})) },
  ];
  for (const name of CALL_NAMES) {
    for (const [there, absent] of pairs) {
      for (const fields of variants) {
        const [one, other] = await Promise.all([
          outcomeOf(CALLS[name](service, there, as.guest, fields)),
          outcomeOf(CALLS[name](service, absent, as.guest, fields)),
        ]);
        // An answer names the organization that was asked for.
        const seen = inspect(one, { depth: null }).replaceAll(there.organizationId, absent.organizationId);
        const what = `${name} ${JSON.stringify(there)} ${Object.keys(fields).join()}`;
        expect(seen, what).toBe(inspect(other, { depth: null }));
      }
    }
  }
  expect(await reasonOf(CALLS.GetKey(service, acme, as.guest, theirs))).toBe('KEY_NOT_FOUND');
  for (const name of ['RevokeKey', 'RotateKey', 'UpdateKey'] as const) {
    expect(await reasonOf(CALLS[name](service, acme, as.guest, theirs))).toBe('KEY_NOT_FOUND');
  }
});

test('an organization outside of the policy reads as empty, and cannot be written to', async () => {
  const { callers, as } = letIn({
    all: { roles: ['admin'] },
    guest: { roles: ['provisioner', 'auditor', 'admin'], organizations: ['acme'] },
  });
  await using service = await startServer({ callers });
  const hidden = { keyspace: 'shop', organizationId: 'hidden' };
  const key = await createBy(service, as.all, hidden);
  const theirs = { selector: { selector: { $case: 'keyId' as const, value: key.keyId } } };
  const before = await organizationsOf(service.store);
  expect(await CALLS.ListKeys(service, hidden, as.guest)).toEqual({ keys: [], nextPageToken: '' });
  expect(await CALLS.ListAuditEvents(service, hidden, as.guest)).toEqual({
    events: [],
    nextPageToken: '',
    headSequence: 0n,
    headHash: GENESIS_HASH,
  } satisfies ListAuditEventsResponse);
  expect(await reasonOf(CALLS.GetKey(service, hidden, as.guest, theirs))).toBe('KEY_NOT_FOUND');
  const empty = await CALLS.GetOrganization(service, { ...hidden, organizationId: 'nobody' }, as.all);
  expect(await CALLS.GetOrganization(service, hidden, as.guest)).toEqual({
    organization: { ...(empty as GetOrganizationResponse).organization, organizationId: 'hidden' },
  });
  for (const name of [
    'CreateKey',
    'UpdateKey',
    'RevokeKey',
    'RotateKey',
    'ImportKeys',
    'UpdateOrganization',
  ] as const) {
    expect(await reasonOf(CALLS[name](service, hidden, as.guest, theirs)), name).toBe('CALLER_NOT_ALLOWED');
  }
  expect(await organizationsOf(service.store)).toEqual(before);
});

test('a key of an organization outside of the policy verifies as NOT_FOUND, whatever organization is asked for', async () => {
  const { callers, as } = letIn({
    all: { roles: ['admin'] },
    gateway: { roles: ['verifier'], keyspaces: ['shop', 'pair'], organizations: ['acme'] },
  });
  await using service = await startServer({ callers });
  const verify = (credential: VerifyKeyRequest['credential'], fields: Partial<VerifyKeyRequest> = {}) =>
    call<VerifyKeyResponse>((done) =>
      service.keys.verifyKey({ ...VerifyKeyRequest.fromPartial({}), credential, ...fields }, as.gateway, done),
    );
  const hidden = await credentialBy(service, as.all, { organizationId: 'hidden' });
  const ours = await credentialBy(service, as.all, { organizationId: 'acme' });
  const otherKeyspace = await credentialBy(service, as.all, { keyspace: 'named' });
  const notFound = { decision: Decision.NOT_FOUND, key: undefined, rateLimit: undefined, cacheTtl: undefined };
  for (const fields of [{}, { organizationId: 'acme' }, { organizationId: 'hidden' }, { organizationId: 'nobody' }]) {
    expect(await verify(hidden, fields)).toEqual(notFound);
    expect(await verify(hidden, { keyspace: 'shop', ...fields })).toEqual(notFound);
  }
  expect((await verify(ours)).decision).toBe(Decision.VALID);
  expect((await verify(ours, { organizationId: 'hidden' })).decision).toBe(Decision.WRONG_ORGANIZATION);
  // Its prefix is none of those that this caller may look in.
  expect((await verify(otherKeyspace)).decision).toBe(Decision.MALFORMED);
});

const actors: [stated: Actor | undefined, outcome: string][] = [
  [undefined, 'SERVICE robot'],
  [{ type: ActorType.UNSPECIFIED, id: '', permissions: [] }, 'SERVICE robot'],
  [{ type: ActorType.SERVICE, id: 'robot', permissions: [] }, 'SERVICE robot'],
  [{ type: ActorType.UNSPECIFIED, id: 'ada', permissions: [] }, 'ACTOR_NOT_ALLOWED'],
  [{ type: ActorType.USER, id: 'robot', permissions: [] }, 'ACTOR_NOT_ALLOWED'],
  [{ type: ActorType.SERVICE, id: 'other', permissions: [] }, 'ACTOR_NOT_ALLOWED'],
  [{ type: ActorType.SYSTEM, id: 'robot', permissions: [] }, 'ACTOR_NOT_ALLOWED'],
];

test.for(actors)('a caller that may not assert actors is the actor itself: %j is %s', async ([actor, outcome]) => {
  const { callers, as } = letIn({ robot: { roles: ['provisioner'] } });
  await using service = await startServer({ callers });
  const answer = call<CreateKeyResponse>((done) => service.keys.createKey(toCreate({ actor }), as.robot, done));
  const reached = await answer.then(
    ({ key }) => `${ActorType[key?.createdBy?.type ?? 0]} ${key?.createdBy?.id ?? ''}`,
    () => reasonOf(answer),
  );
  expect(reached).toBe(outcome);
});

test('a caller that may assert actors must, and vouches for their permissions; another has those of its policy alone', async () => {
  const { callers, as } = letIn({
    console: { roles: ['provisioner'], mayAssertActor: true, permissions: ['admin'] },
    entitled: { roles: ['provisioner'], permissions: ['admin'] },
    bare: { roles: ['provisioner'] },
  });
  await using service = await startServer({ callers });
  const outcome = (metadata: Metadata, actor?: Actor) =>
    reasonOf(call((done) => service.keys.createKey(toCreate({ keyspace: 'guarded', actor }), metadata, done)));
  expect(await outcome(as.console)).toBe('ACTOR_REQUIRED');
  expect(await outcome(as.console, { ...ADA, permissions: [] })).toBe('ACTOR_NOT_ALLOWED');
  expect(await outcome(as.console, { ...ADA, permissions: ['keys.manage'] })).toBe('OK');
  expect(await outcome(as.entitled)).toBe('OK');
  expect(await outcome(as.bare)).toBe('ACTOR_NOT_ALLOWED');
  const itself = { type: ActorType.SERVICE, id: 'bare', permissions: ['admin', 'keys.manage'] };
  expect(await outcome(as.bare, itself)).toBe('ACTOR_NOT_ALLOWED');
});

async function createBy(service: TestServer, as: Metadata, fields: Partial<CreateKeyRequest>) {
  const { key } = await call<CreateKeyResponse>((done) =>
    service.keys.createKey(toCreate({ actor: undefined, ...fields }), as, done),
  );
  if (!key) throw new Error('no key');
  return key;
}

async function credentialBy(service: TestServer, as: Metadata, fields: Partial<CreateKeyRequest>) {
  const { credential } = await call<CreateKeyResponse>((done) =>
    service.keys.createKey(toCreate({ actor: undefined, ...fields }), as, done),
  );
  return credential;
}

async function reasonOf(answer: Promise<unknown>): Promise<string> {
  return answer.then(
    () => 'OK',
    async () => (await toldBy(answer)).reason ?? 'none',
  );
}

/** All that a client sees: the answer, or the error with its details' bytes. */
async function outcomeOf(answer: Promise<unknown>): Promise<unknown> {
  return answer.catch(async () => {
    const { code, details, metadata } = await errorOf(answer);
    return {
      code,
      details,
      bytes: metadata.get('grpc-status-details-bin').map((value) => Buffer.from(value).toString('hex')),
    };
  });
}
