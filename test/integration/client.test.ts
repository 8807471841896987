/** The client and the service as built: what one asks and the other answers. */
import { randomUUID } from 'node:crypto';
import { status } from '@grpc/grpc-js';
import { afterAll, beforeAll, expect, test } from 'vitest';

import { type Answer, type CreatedKey, openClient, ServiceFault } from '../../src/client/client.js';
import { faultOf } from '../support/fault-of.js';
import { failure, startGrpcProxy } from '../support/grpc-proxy.js';
import { type Service, startService } from '../support/service.js';

let service: Service;
beforeAll(async () => {
  service = await startService();
});
afterAll(() => service[Symbol.asyncDispose]());

/** One that no other test uses. */
function newOrganization(keyspace = 'hygiara') {
  const ref = { keyspace, organizationId: `org-${randomUUID()}` };
  return {
    ref,
    by: { ...ref, actor: { type: 'USER', id: 'ada', permissions: ['api_keys.manage', 'admin'] } } as const,
  };
}

/** The answer, where it was no refusal. */
function granted<Content>(answer: Answer<Content>): Content {
  if (!answer.ok) throw new Error(`refused: ${(answer as { reason: string }).reason}`);
  return answer;
}

/** A verification that is repeated counts twice. */
const openDirect = () => openClient({ address: service.address, verifyTimeoutMs: 60_000 });

test('each call answers what it is for', async () => {
  await using client = openDirect();
  const { ref, by } = newOrganization();
  const ttlMs = 3_600_000;
  const { key, credential } = granted(
    await client.createKey({ ...by, name: 'ci', scopes: ['read'], labels: { team: 'a' }, ttlMs }),
  );
  expect(key).toMatchObject({ ...ref, name: 'ci', scopes: ['read'], labels: { team: 'a' }, state: 'ACTIVE' });
  expect(key.createdBy).toEqual({ type: 'USER', id: 'ada' });
  expect(Number(key.expireTime) - Number(key.createTime)).toBe(ttlMs);

  expect(await client.getKey({ ...ref, selector: { keyId: key.keyId } })).toEqual({ ok: true, key });
  expect(await client.listKeys({ ...ref, states: ['ACTIVE'], pageSize: 1 })).toEqual({
    ok: true,
    keys: [key],
    nextPageToken: '',
  });
  expect(await client.verify({ credential, requiredScopes: ['read'], ...ref })).toMatchObject({
    allowed: true,
    key: { keyId: key.keyId, organizationId: ref.organizationId, scopes: ['read'], labels: { team: 'a' } },
    cacheTtlMs: 0,
  });

  const selector = { name: 'ci' };
  const updated = await client.updateKey({ ...by, selector, set: { scopes: ['write'], expireTime: null } });
  expect(updated).toMatchObject({ key: { scopes: ['write'], labels: { team: 'a' } }, enforcement: { complete: true } });
  expect(granted(updated).key.expireTime).toBeUndefined();

  const rotated = granted(await client.rotateKey({ ...by, selector, overlapMs: 60_000 }));
  expect(rotated).toMatchObject({
    replayed: false,
    key: { rotatedFrom: key.keyId },
    previousKey: { keyId: key.keyId },
  });
  expect(await client.verify({ credential: rotated.credential })).toMatchObject({ allowed: true });

  const revoked = await client.revokeKey({ ...by, selector, reason: 'COMPROMISED', reasonDetail: 'found in a log' });
  expect(revoked).toMatchObject({
    key: {
      state: 'REVOKED',
      revocationReason: 'COMPROMISED',
      reasonDetail: 'found in a log',
      revokedBy: { id: 'ada' },
    },
    enforcement: { complete: true },
  });
  expect(await client.verify({ credential: rotated.credential })).toMatchObject({ allowed: false, reason: 'REVOKED' });

  const digest = new Uint8Array(32).fill(7);
  const imported = await client.importKeys({ ...by, keys: [{ digest, name: 'old' }, { digest: new Uint8Array(3) }] });
  expect(imported).toMatchObject({
    results: [
      { ok: true, alreadyImported: false, key: { name: 'old' } },
      { ok: false, reason: 'DIGEST_INVALID', code: 'INVALID_ARGUMENT' },
    ],
  });

  expect(await client.updateOrganization({ ...by, set: { suspended: true } })).toMatchObject({
    organization: { suspended: true },
    enforcement: { complete: true },
  });
  expect(await client.getOrganization(ref)).toMatchObject({ organization: { suspended: true, keyCount: 1 } });
  const audit = granted(await client.listAuditEvents({ ...ref, types: ['key.created'] }));
  expect(audit.events.map(({ sequence }) => sequence)).toEqual([1n]);
  expect(audit.headSequence).toBeGreaterThan(4n);
});

test('a client id and its secret are verified as they were told', async () => {
  await using client = openDirect();
  const { ref, by } = newOrganization('metal');
  const { credential, key } = granted(await client.createKey({ ...by, name: 'ci' }));
  expect(credential).toEqual({ clientId: key.clientId, secret: expect.any(String) as unknown });
  expect(await client.verify({ credential, keyspace: ref.keyspace })).toMatchObject({ allowed: true });
  expect(await client.verify({ credential })).toMatchObject({
    allowed: false,
    reason: 'KEYSPACE_REQUIRED',
    refusal: { code: 'INVALID_ARGUMENT' },
  });
});

test('refusals are values that say why, and which field is at fault', async () => {
  await using client = openDirect();
  const { ref, by } = newOrganization();
  expect(await client.createKey(by)).toMatchObject({
    ok: false,
    reason: 'NAME_REQUIRED',
    violations: [{ field: 'name' }],
  });
  expect(await client.getKey({ ...ref, selector: { name: 'nobody' } })).toMatchObject({ reason: 'KEY_NOT_FOUND' });
  expect(await client.listKeys({ ...ref, keyspace: 'nowhere' })).toMatchObject({ reason: 'KEYSPACE_NOT_FOUND' });
  const { key } = granted(await client.createKey({ ...by, name: 'ci' }));
  const stale = { ...by, selector: { keyId: key.keyId }, set: { disabled: true }, etag: '"0"' };
  expect(await client.updateKey(stale)).toMatchObject({ ok: false, reason: 'ETAG_MISMATCH', code: 'ABORTED' });
});

test('a key with a limit is let in with where it stands, and turned down with when to come again', async () => {
  await using client = openDirect();
  const { by } = newOrganization('hookdeploy');
  const { credential } = granted(await client.createKey({ ...by, name: 'ci' }));
  const answers = await Promise.all(Array.from({ length: 70 }, () => client.verify({ credential })));
  const denied = answers.filter(({ allowed }) => !allowed);
  expect(denied).toHaveLength(10);
  expect(denied[0]).toMatchObject({ reason: 'RATE_LIMITED', rateLimit: { limit: 60, remaining: 0, windowMs: 60_000 } });
  expect(denied[0]?.rateLimit?.retryAfterMs).toBeGreaterThan(0);
});

test('a create whose answer is lost is recovered: one key is left, and its credential is told', async () => {
  await using proxy = await startGrpcProxy(service.address);
  await using client = openClient({ address: proxy.address });
  const { ref, by } = newOrganization();
  proxy.intervene = async ({ method, count, pass }) => {
    const answer = await pass();
    if (method === 'createKey' && count === 1) throw failure(status.UNAVAILABLE);
    return answer;
  };
  const created = granted(await client.createKey({ ...by, name: 'ci', scopes: ['read'] }));
  expect(created.recovered).toBe(true);
  expect(created.key).toMatchObject({ name: 'ci', scopes: ['read'] });
  expect(await client.verify({ credential: created.credential })).toMatchObject({ allowed: true });
  expect(granted(await client.listKeys(ref)).keys.map(({ keyId }) => keyId)).toEqual([created.key.keyId]);
  expect(proxy.passed.map(({ method }) => method).slice(0, 3)).toEqual(['createKey', 'createKey', 'rotateKey']);
  expectSameId(proxy.passed.slice(0, 2));
});

test('however often answers are lost, and wherever it broke off, a create leaves one key that works', async () => {
  await using proxy = await startGrpcProxy(service.address);
  await using client = openClient({ address: proxy.address });
  const { ref, by } = newOrganization();
  const create = (timeoutMs?: number) => client.createKey({ ...by, name: 'ci', requestId: 'mine' }, { timeoutMs });
  const worksAlone = async ({ key, credential }: CreatedKey) => {
    expect(await client.verify({ credential })).toMatchObject({ allowed: true, key: { keyId: key.keyId } });
    expect(granted(await client.listKeys(ref)).keys.map(({ keyId }) => keyId)).toEqual([key.keyId]);
  };
  // No answer to a rotation comes through, and the time runs out in the middle of recovering.
  proxy.intervene = async ({ method, count, pass }) => {
    const answer = await pass();
    if (method === 'rotateKey' || count === 1) throw failure(status.UNAVAILABLE);
    return answer;
  };
  expect(await faultOf(() => create(1000))).toMatchObject({ code: 'UNAVAILABLE', requestId: 'mine' });

  // The first answer under each of two more ids is lost.
  const seen = new Set(proxy.passed.map(({ request }) => request.requestId));
  const lostMax = seen.size + 2;
  proxy.intervene = async ({ request: { requestId }, pass }) => {
    const answer = await pass();
    if (seen.has(requestId) || seen.size === lostMax) return answer;
    seen.add(requestId);
    throw failure(status.UNAVAILABLE);
  };
  const created = granted(await create());
  expect(created.recovered).toBe(true);
  await worksAlone(created);

  const repeated = granted(await create());
  expect(repeated).toMatchObject({ recovered: true, key: { lineageId: created.key.lineageId } });
  expect(await client.verify({ credential: created.credential })).toMatchObject({ allowed: false, reason: 'REVOKED' });
  await worksAlone(repeated);
});

test('a change has the same request id at every try, and another one at every call', async () => {
  await using proxy = await startGrpcProxy(service.address);
  await using client = openClient({ address: proxy.address });
  const { by } = newOrganization();
  const { key } = granted(await client.createKey({ ...by, name: 'ci' }));
  const selector = { keyId: key.keyId };
  const tries: Record<string, () => Promise<Answer<object>>> = {
    updateKey: () => client.updateKey({ ...by, selector, set: { name: 'other' } }),
    rotateKey: () => client.rotateKey({ ...by, selector }),
    revokeKey: () => client.revokeKey({ ...by, selector }),
    importKeys: () => client.importKeys({ ...by, keys: [{ digest: new Uint8Array(32), name: 'old' }] }),
    updateOrganization: () => client.updateOrganization({ ...by, set: { suspended: true } }),
  };
  proxy.intervene = async ({ count, pass }) => {
    const answer = await pass();
    if (count < 3) throw failure(status.UNAVAILABLE);
    return answer;
  };
  const ids = new Set<string | undefined>();
  for (const [method, begin] of Object.entries(tries)) {
    expect(await begin()).toMatchObject({ ok: true });
    const passed = proxy.passed.filter((one) => one.method === method);
    expect(passed).toHaveLength(3);
    ids.add(expectSameId(passed));
  }
  expect(ids.size).toBe(Object.keys(tries).length);
});

test('a rotation whose answer is lost says that the credential was told, and to nobody', async () => {
  await using proxy = await startGrpcProxy(service.address);
  await using client = openClient({ address: proxy.address });
  const { by } = newOrganization();
  const { key } = granted(await client.createKey({ ...by, name: 'ci' }));
  proxy.intervene = async ({ method, count, pass }) => {
    const answer = await pass();
    if (method === 'rotateKey' && count === 1) throw failure(status.UNAVAILABLE);
    return answer;
  };
  const rotated = granted(await client.rotateKey({ ...by, selector: { keyId: key.keyId }, overlapMs: 0 }));
  expect(rotated).toMatchObject({ replayed: true, previousKey: { keyId: key.keyId, state: 'REVOKED' } });
  expect(rotated.credential).toBeUndefined();
});

test('what no repeating helps is said at once; what is away, when the time is over, with the id to ask again with', async () => {
  await using proxy = await startGrpcProxy(service.address);
  await using client = openClient({ address: proxy.address });
  const { ref, by } = newOrganization();
  proxy.intervene = () => Promise.reject(failure(status.INTERNAL));
  await expect(client.getOrganization(ref)).rejects.toMatchObject({ name: 'ServiceFault', code: 'INTERNAL' });
  expect(proxy.passed).toHaveLength(1);

  proxy.intervene = () => Promise.reject(failure(status.UNAVAILABLE));
  const create = () => client.createKey({ ...by, name: 'ci', requestId: 'mine' }, { timeoutMs: 300 });
  expect(await faultOf(create)).toMatchObject({ code: 'UNAVAILABLE', requestId: 'mine' });
  await expect(client.verify({ credential: 'x' }, { timeoutMs: 100 })).rejects.toBeInstanceOf(ServiceFault);
});

test('a replica that says nothing is given a part of the time, and then another try is made', async () => {
  await using proxy = await startGrpcProxy(service.address);
  await using client = openClient({ address: proxy.address });
  const { ref } = newOrganization();
  proxy.intervene = ({ count, pass }) => (count === 1 ? new Promise<never>(() => undefined) : pass());
  expect(await client.getOrganization(ref, { timeoutMs: 12_000 })).toMatchObject({ ok: true });
  expect(await client.verify({ credential: 'x' }, { timeoutMs: 12_000 })).toMatchObject({ reason: 'MALFORMED' });
  expect(proxy.passed).toHaveLength(4);
});

test('a client that is closed begins nothing, and finishes what it had begun', async () => {
  await using proxy = await startGrpcProxy(service.address);
  const client = openClient({ address: proxy.address });
  const { ref } = newOrganization();
  const begun = [client.verify({ credential: 'x' }), client.verify({ credential: 'y' }), client.getOrganization(ref)];
  const closed = client.close();
  for (const one of [() => client.verify({ credential: 'x' }), () => client.getOrganization(ref)]) {
    await expect(one()).rejects.toMatchObject({ name: 'ServiceFault', reason: 'CLIENT_CLOSED' });
  }
  expect(await Promise.all(begun)).toMatchObject([{ reason: 'MALFORMED' }, { reason: 'MALFORMED' }, { ok: true }]);
  await closed;
  await client.close();
  await client[Symbol.asyncDispose]();
});

test('a client that is closed while the service is away waits for no retry', async () => {
  await using proxy = await startGrpcProxy(service.address);
  const client = openClient({ address: proxy.address, timeoutMs: 600_000, verifyTimeoutMs: 600_000 });
  const tried = new Promise<void>((resolve) => {
    proxy.intervene = () => {
      if (proxy.passed.length > 10) resolve();
      return Promise.reject(failure(status.UNAVAILABLE));
    };
  });
  const waiting = [client.verify({ credential: 'x' }), client.getOrganization(newOrganization().ref)];
  const faults = Promise.allSettled(waiting);
  await tried;
  await client.close();
  for (const settled of await faults) expect(settled).toMatchObject({ reason: { code: 'UNAVAILABLE' } });
});

function expectSameId(passed: readonly { readonly request: { readonly requestId?: string } }[]): string | undefined {
  const ids = new Set(passed.map(({ request }) => request.requestId));
  expect(ids.size).toBe(1);
  const [id] = ids;
  expect(id).toMatch(/^[\x21-\x7e]{1,128}$/);
  return id;
}
