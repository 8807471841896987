/** The store going away and coming back, health that tells of it, and the end of the server. */
import { once } from 'node:events';
import { connect } from 'node:net';
import { credentials, Metadata, status } from '@grpc/grpc-js';
import { expect, test } from 'vitest';

import { ListAuditEventsRequest } from '../../src/gen/keyreeve/v1/audit_service.js';
import {
  type BatchVerifyKeysResponse,
  CreateKeyRequest,
  type CreateKeyResponse,
  GetKeyRequest,
  type ImportKeysResponse,
  KeyServiceClient,
  ListKeysRequest,
  VerifyKeyRequest,
  type VerifyKeyResponse,
} from '../../src/gen/keyreeve/v1/key_service.js';
import { Decision } from '../../src/gen/keyreeve/v1/verification.js';
import { StoreFault } from '../../src/store/faults.js';
import { breakable, type Breakage, holdUp } from '../support/breakable-store.js';
import { call } from '../support/call.js';
import {
  create,
  startServer,
  type TestServer,
  toCreate,
  toImport,
  toldBy,
  toRevoke,
  toRotate,
  toTold,
  toUpdate,
  toUpdateOrganization,
} from '../support/grpc-server.js';
import { HealthClient } from '../support/health-client.js';
import { RawClient, toFrame } from '../support/raw-grpc.js';
import { startService } from '../support/service.js';
import { TEST_TLS } from '../support/test-tls.js';

const CREATE = '/keyreeve.v1.KeyService/CreateKey';
const CHECK = '/grpc.health.v1.Health/Check';
const KEY_SERVICE = 'keyreeve.v1.KeyService';
const aCreate = () => toFrame(CreateKeyRequest.encode(toCreate()).finish());
const storeIsDown = () => Promise.reject(new StoreFault('unavailable', 'no disk', { cause: new Error('EIO') }));

async function startBreakable(before?: Breakage['before']): Promise<{ service: TestServer; breakage: Breakage }> {
  const breakage: Breakage = before ? { before } : {};
  return { breakage, service: await startServer({ wrap: (store) => breakable(store, breakage) }) };
}

test('while the store is down every call is UNAVAILABLE with a time to retry, and no restart is needed after', async () => {
  const { breakage, service: started } = await startBreakable();
  await using service = started;
  const { key, credential } = await create(service);
  const organization = { keyspace: 'shop', organizationId: 'acme' };
  const selector = { selector: { $case: 'keyId' as const, value: key.keyId } };
  const verify = () =>
    call<VerifyKeyResponse>((done) =>
      service.keys.verifyKey({ ...VerifyKeyRequest.fromPartial({}), credential }, done),
    );
  const calls: (() => Promise<unknown>)[] = [
    () => call((done) => service.keys.createKey(toCreate(), done)),
    () => call((done) => service.keys.getKey({ ...GetKeyRequest.fromPartial({}), ...organization, selector }, done)),
    () => call((done) => service.keys.listKeys({ ...ListKeysRequest.fromPartial({}), ...organization }, done)),
    () =>
      call((done) =>
        service.audit.listAuditEvents({ ...ListAuditEventsRequest.fromPartial({}), ...organization }, done),
      ),
    verify,
    () => call((done) => service.organizations.getOrganization(organization, done)),
    () => call((done) => service.organizations.updateOrganization(toUpdateOrganization({ suspended: false }), done)),
    () => call((done) => service.keys.updateKey(toUpdate(key, { name: 'build' }), done)),
    () => call((done) => service.keys.rotateKey(toRotate(key), done)),
    () => call((done) => service.keys.importKeys(toImport([], { requestId: 'r1' }), done)),
    () => call((done) => service.keys.revokeKey(toRevoke(key), done)),
  ];
  breakage.before = storeIsDown;
  for (const make of calls) {
    expect(await toldBy(make())).toEqual({
      code: 'UNAVAILABLE',
      reason: 'STORE_UNAVAILABLE',
      domain: 'keyreeve',
      metadata: {},
      retrySeconds: 1,
    });
  }
  // Of an import each item has an answer of its own, as those before it may be stored.
  const importing = () => {
    const secret = { $case: 'digest' as const, value: Buffer.alloc(32, 1) };
    return call<ImportKeysResponse>((done) => service.keys.importKeys(toImport([{ secret, name: 'old' }]), done));
  };
  expect((await importing()).results).toMatchObject([
    { result: { $case: 'failure', value: { code: status.UNAVAILABLE, reason: 'STORE_UNAVAILABLE' } } },
  ]);
  breakage.before = () => Promise.reject(new StoreFault('contention', 'others were first'));
  const contended = await toldBy(call((done) => service.keys.createKey(toCreate(), done)));
  expect(contended).toMatchObject({ code: 'ABORTED', reason: 'CONTENTION' });
  delete breakage.before;
  expect((await verify()).decision).toBe(Decision.VALID);
  for (const make of calls) await make();
  expect((await importing()).results).toMatchObject([{ result: { $case: 'key' } }]);
  expect((await verify()).decision).toBe(Decision.REVOKED);
});

test('health tells that the store is away and that it is back, and the process is up all the while', async () => {
  const { breakage, service: started } = await startBreakable();
  await using service = started;
  using health = new HealthClient(service.address);
  expect(await health.check('')).toBe('SERVING');
  expect(await health.check(KEY_SERVICE)).toBe('SERVING');
  expect(await toldBy(health.check('keyreeve.v1.Other'))).toEqual({ code: 'NOT_FOUND' });
  const statuses = health.watch(KEY_SERVICE);
  statuses.ended.catch(() => undefined);
  expect(await statuses.next()).toBe('SERVING');
  breakage.before = storeIsDown;
  expect(await statuses.next()).toBe('NOT_SERVING');
  expect(await health.check('')).toBe('SERVING');
  delete breakage.before;
  expect(await statuses.next()).toBe('SERVING');
  const messages = service.logged.map((line) => (JSON.parse(line) as { message: string }).message);
  expect(messages).toEqual(['the store does not answer', 'the store answers again']);
});

test('a store that is down at the start keeps health down, not the server', async () => {
  const { breakage, service: started } = await startBreakable(storeIsDown);
  await using service = started;
  using health = new HealthClient(service.address);
  expect(await health.check(KEY_SERVICE)).toBe('NOT_SERVING');
  expect(await health.check('')).toBe('SERVING');
  delete breakage.before;
  await create(service);
});

test('before the end health says that it is near, and calls are still answered', async () => {
  await using service = await startServer();
  using health = new HealthClient(service.address);
  service.server.notServing();
  expect(await health.check('')).toBe('NOT_SERVING');
  expect(await health.check(KEY_SERVICE)).toBe('NOT_SERVING');
  await create(service);
});

test('at the end a call that runs is finished, and one that comes too late is told to go elsewhere', async () => {
  const { breakage, service: started } = await startBreakable();
  await using service = started;
  using raw = new RawClient(service.address);
  const late = raw.begin(CREATE);
  const hold = holdUp(breakage);
  const running = call<CreateKeyResponse>((done) => service.keys.createKey(toCreate(), done));
  await hold.reached;
  // This was sent after the late call's headers, so with its answer the server has those.
  expect(await raw.call(CHECK, Buffer.alloc(0))).toEqual({ code: 'OK' });
  const ended = service.server[Symbol.asyncDispose]();
  late.stream.end(aCreate());
  expect(await late.told).toMatchObject({ code: 'UNAVAILABLE', reason: 'SHUTTING_DOWN', retrySeconds: 1 });
  hold.release();
  expect((await running).key?.name).toBe('ci');
  await ended;
  const after = new KeyServiceClient(service.address, credentials.createInsecure());
  expect((await toldBy(call((done) => after.createKey(toCreate(), done)))).code).toBe('UNAVAILABLE');
  after.close();
});

test('at the end a batch that runs is finished, each of its items', async () => {
  const { breakage, service: started } = await startBreakable();
  await using service = started;
  const { credential } = await create(service);
  const hold = holdUp(breakage);
  const requests = Array.from({ length: 20 }, () => VerifyKeyRequest.fromPartial({ credential }));
  const running = call<BatchVerifyKeysResponse>((done) => service.keys.batchVerifyKeys({ requests }, done));
  await hold.reached;
  const ended = service.server[Symbol.asyncDispose]();
  hold.release();
  const { results } = await running;
  expect(results.map(({ result }) => result?.$case === 'response' && result.value.decision)).toEqual(
    requests.map(() => Decision.VALID),
  );
  await ended;
});

test('neither a half-sent request, nor a watch, nor a call that never ends keeps the server from ending', async () => {
  const { breakage, service: started } = await startBreakable();
  await using service = started;
  using raw = new RawClient(service.address);
  const half = raw.begin(CREATE);
  half.stream.write(aCreate().subarray(0, 20));
  using health = new HealthClient(service.address);
  const statuses = health.watch(KEY_SERVICE);
  expect(await statuses.next()).toBe('SERVING');
  const hold = holdUp(breakage);
  const stuck = toldBy(call((done) => service.keys.createKey(toCreate(), done)));
  await hold.reached;
  await service.server[Symbol.asyncDispose]();
  expect(await statuses.next()).toBe('NOT_SERVING');
  expect(toTold(await statuses.ended)).toMatchObject({ code: 'UNAVAILABLE', reason: 'SHUTTING_DOWN' });
  expect(await half.told).toBeUndefined();
  // So that it is repeated elsewhere: CANCELLED is for a client that gave up itself.
  expect(await stuck).toMatchObject({ code: 'UNAVAILABLE', reason: 'SHUTTING_DOWN', retrySeconds: 1 });
  hold.release();
});

test('a client that neither reads nor closes its connection does not keep the process from ending', async () => {
  await using service = await startService();
  const [host = '', port = ''] = service.address.split(':');
  // Nothing reads from it, so it never learns that the server is done, as one that is cut off does not.
  const client = connect({ host, port: Number(port) });
  client.pause();
  await once(client, 'connect');
  // Accepted in turn: once a later connection is answered, this one is known.
  await call((done) => service.keys.verifyKey(VerifyKeyRequest.fromPartial({}), done));
  expect(await service.stop()).toBe(0);
  client.destroy();
});

test('with a certificate the server speaks TLS and nothing else', async () => {
  await using service = await startServer({ tls: TEST_TLS });
  await create(service);
  const plain = new KeyServiceClient(service.address, credentials.createInsecure());
  const options = { deadline: Date.now() + 2000 };
  const answer = call((done) => plain.createKey(toCreate(), new Metadata(), options, done));
  expect(['UNAVAILABLE', 'DEADLINE_EXCEEDED']).toContain((await toldBy(answer)).code);
  plain.close();
});

test('an address that is taken is named by the error', async () => {
  await using service = await startServer();
  const port = Number(service.address.split(':').at(-1));
  await expect(startServer({ port })).rejects.toThrow(`cannot listen on 127.0.0.1:${port}`);
});
