/** Verifications that are asked for together travel together, and each gets its own answer. */
import { randomUUID } from 'node:crypto';
import { status } from '@grpc/grpc-js';
import { afterAll, beforeAll, expect, test } from 'vitest';

import { openClient, type KeyreeveClient, type Verification } from '../../src/client/client.js';
import { BatchVerifyKeysResponse } from '../../src/gen/keyreeve/v1/key_service.js';
import { failure, type GrpcProxy, type Passing, startGrpcProxy } from '../support/grpc-proxy.js';
import { type Service, startService } from '../support/service.js';

let service: Service;
beforeAll(async () => {
  service = await startService();
});
afterAll(() => service[Symbol.asyncDispose]());

async function open() {
  const proxy = await startGrpcProxy(service.address);
  const client = openClient({ address: proxy.address, verifyTimeoutMs: 60_000 });
  return {
    proxy,
    client,
    async [Symbol.asyncDispose]() {
      await client.close();
      await proxy[Symbol.asyncDispose]();
    },
  };
}

async function issue(client: KeyreeveClient, count: number, fields: { scopes?: string[] } = {}) {
  const ref = {
    keyspace: 'hygiara',
    organizationId: `org-${randomUUID()}`,
    actor: { type: 'USER', id: 'ada' },
  } as const;
  const issued: { keyId: string; credential: string; organizationId: string }[] = [];
  for (let at = 0; at < count; at += 1) {
    const created = await client.createKey({ ...ref, name: `key ${at}`, ...fields });
    if (!created.ok || typeof created.credential !== 'string') throw new Error('a key was not created');
    issued.push({ keyId: created.key.keyId, credential: created.credential, organizationId: ref.organizationId });
  }
  return issued;
}

const keyIdOf = (verification: Verification) => (verification.allowed ? verification.key.keyId : verification.reason);
const sizesOf = (proxy: GrpcProxy) =>
  proxy.passed.flatMap(({ method, request }: Passing) =>
    method === 'verifyKey' ? [1] : method === 'batchVerifyKeys' ? [request.requests?.length ?? 0] : [],
  );

test('what is asked for in one turn travels in one call, 100 at most, and each gets its own answer', async () => {
  await using parts = await open();
  const { proxy, client } = parts;
  const issued = await issue(client, 5);
  const asked = Array.from({ length: 230 }, (_, at) => issued[at % 5] ?? { keyId: '', credential: '' });
  const answers = await Promise.all(asked.map(({ credential }) => client.verify({ credential })));
  expect(answers.map(keyIdOf)).toEqual(asked.map(({ keyId }) => keyId));
  expect(sizesOf(proxy)).toEqual([100, 100, 30]);
});

test('one that is alone travels alone, and does not wait for others', async () => {
  await using parts = await open();
  const { proxy, client } = parts;
  for (let at = 0; at < 3; at += 1) expect(keyIdOf(await client.verify({ credential: 'x' }))).toBe('MALFORMED');
  expect(proxy.passed.map(({ method }) => method)).toEqual(['verifyKey', 'verifyKey', 'verifyKey']);
});

test('each has its own terms and its own outcome', async () => {
  await using parts = await open();
  const { client, proxy } = parts;
  const [key] = await issue(client, 1, { scopes: ['read'] });
  const { credential = '', organizationId = '' } = key ?? {};
  const answers = await Promise.all([
    client.verify({ credential, requiredScopes: ['read'], organizationId, keyspace: 'hygiara' }),
    client.verify({ credential, requiredScopes: ['write'] }),
    client.verify({ credential, organizationId: 'other' }),
    client.verify({ credential, keyspace: 'metlo' }),
    client.verify({ credential, keyspace: 'nowhere' }),
    client.verify({ credential, requiredScopes: ['not a scope'] }),
    client.verify({}),
  ]);
  expect(sizesOf(proxy)).toEqual([7]);
  expect(answers.map(keyIdOf)).toEqual([
    key?.keyId,
    'INSUFFICIENT_SCOPE',
    'WRONG_ORGANIZATION',
    'MALFORMED',
    'KEYSPACE_NOT_FOUND',
    'SCOPES_INVALID',
    'MALFORMED',
  ]);
  expect(answers[5]).toMatchObject({ refusal: { violations: [{ field: 'required_scopes[0]' }] } });
});

test('no more calls are under way than 16, and what gathers meanwhile travels together', async () => {
  await using parts = await open();
  const { proxy, client } = parts;
  const held: (() => void)[] = [];
  proxy.intervene = async ({ pass }) => {
    if (held.length < 16) await new Promise<void>((go) => held.push(go));
    return pass();
  };
  const answers: Promise<Verification>[] = [];
  for (let at = 0; at < 40; at += 1) {
    answers.push(client.verify({ credential: `x${at}` }));
    // Each in a turn of its own.
    await new Promise((resolve) => setImmediate(resolve));
  }
  await expect.poll(() => held.length).toBe(16);
  expect(sizesOf(proxy)).toEqual(Array(16).fill(1));
  for (const go of held) go();
  await Promise.all(answers);
  expect(sizesOf(proxy)).toEqual([...Array<number>(16).fill(1), 24]);
});

test('each has its own time: one that runs out does not end the others', async () => {
  await using parts = await open();
  const { proxy, client } = parts;
  let go = (): void => undefined;
  const held = new Promise<void>((resolve) => (go = resolve));
  proxy.intervene = ({ pass }) => held.then(pass);
  const short = client.verify({ credential: 'x' }, { timeoutMs: 50 });
  const long = client.verify({ credential: 'x' }, { timeoutMs: 60_000 });
  await expect(short).rejects.toMatchObject({ code: 'DEADLINE_EXCEEDED' });
  go();
  expect(await long).toMatchObject({ reason: 'MALFORMED' });
  expect(sizesOf(proxy)).toEqual([2]);
});

test('a batch that fails is asked for again as one, and an item that fails is asked for again alone', async () => {
  await using parts = await open();
  const { proxy, client } = parts;
  proxy.intervene = async ({ method, count, pass }) => {
    if (method === 'verifyKey') return pass();
    if (count === 1) throw failure(status.UNAVAILABLE);
    const answer = BatchVerifyKeysResponse.fromPartial(await pass());
    const value = { code: status.UNAVAILABLE, reason: 'STORE_UNAVAILABLE', message: 'away', field: '' };
    return { results: [{ result: { $case: 'failure', value } }, ...answer.results.slice(1)] };
  };
  const answers = await Promise.all([client.verify({ credential: 'x' }), client.verify({ credential: 'y' })]);
  expect(answers.map(keyIdOf)).toEqual(['MALFORMED', 'MALFORMED']);
  expect(sizesOf(proxy)).toEqual([2, 2, 1]);
});

test('an answer that leaves items out, or out of form, is a fault for them and no answer for another', async () => {
  await using parts = await open();
  const { proxy, client } = parts;
  proxy.intervene = async ({ pass }) => {
    const answer = BatchVerifyKeysResponse.fromPartial(await pass());
    return { results: [answer.results[0] ?? {}, {}] };
  };
  const settled = await Promise.allSettled(['x', 'y', 'z'].map((credential) => client.verify({ credential })));
  expect(settled).toMatchObject([
    { value: { reason: 'MALFORMED' } },
    { reason: { code: 'INTERNAL' } },
    { reason: { code: 'INTERNAL' } },
  ]);
});

test('a decision that this version does not know is a denial, alone and in a batch', async () => {
  await using parts = await open();
  const { proxy, client } = parts;
  const [key] = await issue(client, 1);
  const credential = key?.credential;
  const asUnknown = (response: object) => ({ ...response, decision: 4711 });
  proxy.intervene = async ({ method, pass }) => {
    const answer = await pass();
    if (method === 'verifyKey') return asUnknown(answer);
    const { results } = BatchVerifyKeysResponse.fromPartial(answer);
    return {
      results: results.map(({ result }) => ({ result: { $case: 'response', value: asUnknown(result?.value ?? {}) } })),
    };
  };
  const verify = () => client.verify({ credential });
  for (const answer of [await verify(), ...(await Promise.all([verify(), verify()]))]) {
    expect(answer).toMatchObject({ allowed: false, reason: 'UNRECOGNIZED' });
  }
});

test('credentials that are too large together travel apart, and one that is too large alone fails alone', async () => {
  await using parts = await open();
  const { client } = parts;
  const large = 'x'.repeat(16_000);
  const asked = [...Array<string>(60).fill(large), 'x'.repeat(300_000)];
  const settled = await Promise.allSettled(asked.map((credential) => client.verify({ credential })));
  const last = settled.pop();
  for (const one of settled) expect(one).toMatchObject({ value: { reason: 'MALFORMED' } });
  expect(last).toMatchObject({ reason: { name: 'ServiceFault', code: 'RESOURCE_EXHAUSTED' } });
});
