/** Three replicas on one MongoDB, and a client that knows them all. */
import { afterAll, beforeAll, expect, inject, test } from 'vitest';

import { openClient, type Verification } from '../../src/client/client.js';
import { faultOf } from '../support/fault-of.js';
import { inOwnDatabase } from '../support/mongodb-store.js';
import { pause, resume } from '../support/pause.js';
import { type Service, startService } from '../support/service.js';

const by = { keyspace: 'hygiara', organizationId: 'acme', actor: { type: 'USER', id: 'ada' } } as const;

let replicas: [Service, Service, Service];
beforeAll(async () => {
  const settings = {
    KEYREEVE_MONGODB_URI: inOwnDatabase(inject('mongodbUri')),
    KEYREEVE_LOG_LEVEL: 'debug',
    // What is recovered waits for as long as the dead one may have answered from memory.
    KEYREEVE_LEASE_MS: '2000',
  };
  replicas = await Promise.all([startService(settings), startService(settings), startService(settings)]);
});
afterAll(() => Promise.all(replicas.map((replica) => replica[Symbol.asyncDispose]())));

const openToAll = () => openClient({ address: replicas.map(({ address }) => address) });

const verificationsOf = (replica: Service) => replica.output().match(/"call":"(Batch)?VerifyKeys?"/g)?.length ?? 0;

/** Callers that each verify again and again. */
function load(callers: number, verify: () => Promise<Verification>) {
  const answers: Verification[] = [];
  let over = false;
  const calling = Array.from({ length: callers }, async () => {
    while (!over) answers.push(await verify());
  });
  return {
    /** Resolves once there are so many answers more. */
    async goesOnFor(count: number): Promise<void> {
      const enough = answers.length + count;
      while (answers.length < enough) {
        await Promise.race([...calling, new Promise((resolve) => setTimeout(resolve, 10))]);
      }
    },
    async stop(): Promise<readonly Verification[]> {
      over = true;
      await Promise.all(calling);
      return answers;
    },
  };
}

test('a change that its replica dies of is carried out by another, once', async () => {
  const [first] = replicas;
  await using client = openToAll();
  const creating = Array.from({ length: 24 }, (_, at) => client.createKey({ ...by, name: `key ${at}` }));
  await expect.poll(() => first.output()).toContain('"call":"CreateKey"');
  await first.kill();
  const created = await Promise.all(creating);
  for (const answer of created) {
    if (!answer.ok) throw new Error(answer.reason);
    expect(await client.verify({ credential: answer.credential }, { timeoutMs: 20_000 })).toMatchObject({
      allowed: true,
    });
  }
  const listed = await client.listKeys({ ...by, pageSize: 100 });
  expect(listed.ok && listed.keys.map(({ name }) => name).sort()).toEqual(
    Array.from({ length: 24 }, (_, at) => `key ${at}`).sort(),
  );
  await first.restart();
});

test('a replica that hangs costs no verification, and lets nobody in who was shut out meanwhile', async () => {
  const [hanging, , left] = replicas;
  await using client = openToAll();
  await using toLeft = openClient({ address: left.address });
  const created = await toLeft.createKey({ ...by, organizationId: 'hanging', name: 'ci' });
  if (!created.ok) throw new Error(created.reason);
  const { credential, key } = created;
  // A third of it for each replica that is asked.
  const verify = () => client.verify({ credential }, { timeoutMs: 9000 });
  const running = load(32, verify);
  await running.goesOnFor(500);
  await expect.poll(() => verificationsOf(hanging)).toBeGreaterThan(0);
  await pause(hanging.pid);
  // Those that the hanging one was asked for are answered by the others.
  await running.goesOnFor(500);
  const answers = await running.stop();
  expect(answers.filter(({ allowed }) => !allowed)).toEqual([]);

  const selector = { keyId: key.keyId };
  const revoked = await toLeft.revokeKey({ ...by, organizationId: 'hanging', selector, reason: 'COMPROMISED' });
  expect(revoked).toMatchObject({ ok: true, enforcement: { complete: true } });
  const after = load(32, verify);
  await after.goesOnFor(100);
  const before = verificationsOf(hanging);
  resume(hanging.pid);
  await expect.poll(() => verificationsOf(hanging)).toBeGreaterThan(before);
  expect((await after.stop()).filter((answer) => answer.allowed || answer.reason !== 'REVOKED')).toEqual([]);
});

test('a replica that is killed, and one that is stopped, cost no verification, and come back into turn', async () => {
  const [killed, stopped, left] = replicas;
  await using client = openToAll();
  const created = await client.createKey({ ...by, organizationId: 'other', name: 'ci' });
  if (!created.ok) throw new Error(created.reason);
  const { credential } = created;
  const running = load(32, () => client.verify({ credential }, { timeoutMs: 20_000 }));

  await running.goesOnFor(500);
  await expect.poll(() => Math.min(...replicas.map(verificationsOf))).toBeGreaterThan(0);
  await killed.kill();
  await running.goesOnFor(500);
  await stopped.stop();
  await running.goesOnFor(500);

  const before = verificationsOf(killed);
  await killed.restart();
  await expect.poll(() => verificationsOf(killed)).toBeGreaterThan(before);
  expect(left.running).toBe(true);
  const answers = await running.stop();
  expect(answers.filter(({ allowed }) => !allowed)).toEqual([]);
});

test('a client whose only service is restarted finds it again', async () => {
  await using service = await startService();
  await using client = openClient({ address: service.address });
  expect(await client.verify({ credential: 'x' })).toMatchObject({ reason: 'MALFORMED' });
  await service.kill();
  const fault = await faultOf(() => client.verify({ credential: 'x' }, { timeoutMs: 200 }));
  expect(fault).toMatchObject({ code: 'UNAVAILABLE' });
  const waiting = client.verify({ credential: 'x' }, { timeoutMs: 60_000 });
  await service.restart();
  expect(await waiting).toMatchObject({ allowed: false, reason: 'MALFORMED' });
});
