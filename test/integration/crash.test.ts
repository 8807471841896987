/** The service as built, killed at random moments under load: what it acknowledged is there, and nothing is there twice. */
import { randomInt, randomUUID } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Metadata } from '@grpc/grpc-js';
import { expect, inject, test } from 'vitest';

import { ActorType } from '../../src/gen/keyreeve/v1/actor.js';
import {
  CreateKeyRequest,
  type CreateKeyResponse,
  ListKeysRequest,
  type ListKeysResponse,
  RevokeKeyRequest,
  type RevokeKeyResponse,
  VerifyKeyRequest,
  type VerifyKeyResponse,
} from '../../src/gen/keyreeve/v1/key_service.js';
import { Decision } from '../../src/gen/keyreeve/v1/verification.js';
import { call } from '../support/call.js';
import { type Service, type ServiceSettings, startService } from '../support/service.js';

const KILLS = 4;
const CREATORS = 4;
const ORGANIZATION = { keyspace: 'hygiara', organizationId: 'acme' };
const ACTOR = { type: ActorType.USER, id: 'ada', permissions: [] };

const stacks: { name: string; settings: () => ServiceSettings }[] = [
  { name: 'SQLite and a file', settings: () => ({}) },
  {
    name: 'MongoDB and Kafka',
    settings: () => ({
      KEYREEVE_MONGODB_URI: toDatabase(inject('mongodbUri'), `crash_${randomUUID().slice(0, 8)}`),
      KEYREEVE_KAFKA_BROKERS: inject('kafkaBrokers').join(','),
      KEYREEVE_AUDIT_TOPIC: `crash.${randomUUID()}`,
      KEYREEVE_KAFKA_ALLOW_SINGLE_BROKER: 'true',
    }),
  },
];

test.for(stacks)(
  'a create that is repeated until it is answered makes one key, however often the service is killed: $name',
  { timeout: 120_000 },
  async ({ settings }) => {
    await using service = await startService(settings());
    const wanted = new Map<string, CreateKeyResponse>();
    let over = false;
    const creators = Array.from({ length: CREATORS }, async (_, creator) => {
      for (let n = 0; !over; n += 1) {
        const name = `key-${creator}-${n}`;
        wanted.set(name, await createUntilAnswered(service, name, randomUUID()));
      }
    });
    for (let kills = 0; kills < KILLS; kills += 1) {
      const before = wanted.size;
      await until(() => wanted.size >= before + CREATORS);
      await delay(randomInt(30));
      await service.kill();
      await service.restart();
    }
    over = true;
    await Promise.all(creators);

    const listed = await listAll(service);
    expect(listed.map(({ name }) => name).sort()).toEqual([...wanted.keys()].sort());
    for (const { key, credential, replayed } of wanted.values()) {
      expect(listed.find(({ name }) => name === key?.name)?.keyId).toBe(key?.keyId);
      if (replayed || !credential) continue; // the answer that held the credential was lost to a crash
      const { decision } = await call<VerifyKeyResponse>((done) =>
        service.keys.verifyKey(VerifyKeyRequest.fromPartial({ keyspace: 'hygiara', credential }), done),
      );
      expect(decision).toBe(Decision.VALID);
    }
  },
);

test('a revocation that was answered before a crash denies after it, and its repeat makes no second event', async () => {
  await using service = await startService();
  const { key, credential } = await createUntilAnswered(service, 'ci', randomUUID());
  const revoke = () =>
    call<RevokeKeyResponse>((done) =>
      service.keys.revokeKey(
        RevokeKeyRequest.fromPartial({
          ...ORGANIZATION,
          actor: ACTOR,
          requestId: 'r1',
          selector: { selector: { $case: 'keyId', value: key?.keyId ?? '' } },
        }),
        done,
      ),
    );
  const first = await revoke();
  await service.kill();
  await service.restart();
  expect((await revoke()).key?.revokeTime).toEqual(first.key?.revokeTime);
  const { decision } = await call<VerifyKeyResponse>((done) =>
    service.keys.verifyKey(VerifyKeyRequest.fromPartial({ keyspace: 'hygiara', credential }), done),
  );
  expect(decision).toBe(Decision.REVOKED);
  expect(await service.stop()).toBe(0);
  const lines = (await readFile(join(service.dataDir, 'audit.jsonl'), 'utf8')).trimEnd().split('\n');
  const ids = new Set(lines.map((line) => (JSON.parse(line) as { id: string }).id));
  expect(ids.size).toBe(2);
});

async function createUntilAnswered(service: Service, name: string, requestId: string): Promise<CreateKeyResponse> {
  const request = CreateKeyRequest.fromPartial({ ...ORGANIZATION, actor: ACTOR, requestId, name });
  for (;;) {
    try {
      return await call((done) =>
        service.keys.createKey(request, new Metadata({ waitForReady: true }), { deadline: Date.now() + 5000 }, done),
      );
    } catch {
      await delay(20); // killed, or not up again yet: the same request again
    }
  }
}

async function listAll(service: Service): Promise<{ name: string; keyId: string }[]> {
  const keys: { name: string; keyId: string }[] = [];
  let pageToken = '';
  do {
    const page = await call<ListKeysResponse>((done) =>
      service.keys.listKeys(ListKeysRequest.fromPartial({ ...ORGANIZATION, pageSize: 500, pageToken }), done),
    );
    keys.push(...page.keys);
    pageToken = page.nextPageToken;
  } while (pageToken !== '');
  return keys;
}

function toDatabase(uri: string, database: string): string {
  const url = new URL(uri);
  url.pathname = `/${database}`;
  return url.toString();
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await delay(5);
}
