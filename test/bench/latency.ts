/**
 * How long a caller waits for CreateKey, VerifyKey and RevokeKey, one at a time, on both stacks, beside the bare
 * engine's own write and read: `npm run bench:latency [-- ROUNDS]`. Each round measures everything once, so that a
 * machine whose speed drifts is slow for all alike. Prints a table; nothing is asserted.
 */
import { randomUUID } from 'node:crypto';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Kafka, logLevel } from 'kafkajs';

import { ActorType } from '../../src/gen/keyreeve/v1/actor.js';
import {
  CreateKeyRequest,
  type CreateKeyResponse,
  RevokeKeyRequest,
  type RevokeKeyResponse,
  VerifyKeyRequest,
  type VerifyKeyResponse,
} from '../../src/gen/keyreeve/v1/key_service.js';
import { call } from '../support/call.js';
import { makeGuardedFolder } from '../support/guard.js';
import { type Service, startService } from '../support/service.js';
import { openSharedServers } from '../support/shared-servers.js';
import { openBareMongodb, openBareSqlite } from './bare.js';
import { quantile, toTable } from './report.js';

const WARM_UP_ROUNDS = 50;
const ORGANIZATION = { keyspace: 'hygiara', organizationId: 'acme' };
const ACTOR = { type: ActorType.USER, id: 'ada', permissions: [] };

const rounds = Number(process.argv[2] ?? 500);
const samples = new Map<string, number[]>();

await using folder = await makeGuardedFolder(join(tmpdir(), 'keyreeve-bench-'));
await using servers = await openSharedServers();
const run = randomUUID().slice(0, 8);
const uri = new URL(servers.mongodbUri);
uri.pathname = `/bench_${run}`;
const topic = `bench.${run}`;
await using sqlite = await startService();
await using mongodb = await startService({
  KEYREEVE_MONGODB_URI: uri.toString(),
  KEYREEVE_KAFKA_BROKERS: servers.kafkaBrokers.join(','),
  KEYREEVE_AUDIT_TOPIC: topic,
  KEYREEVE_KAFKA_ALLOW_SINGLE_BROKER: 'true',
});
const bareSqlite = openBareSqlite(join(folder.path, 'bare.db'));
await using bareMongodb = await openBareMongodb(uri.toString().replace('bench_', 'bare_'));
await using revocations = await watchRevocations(servers.kafkaBrokers, topic);

for (let round = -WARM_UP_ROUNDS; round < rounds; round += 1) {
  const measure = async <T>(what: string, work: () => Promise<T> | T): Promise<T> => {
    const begin = performance.now();
    const answer = await work();
    if (round >= 0) record(what, performance.now() - begin);
    return answer;
  };
  await measure('SQLite, bare: insert of two rows, durable', () => bareSqlite.write(round));
  await measure('SQLite, bare: read by unique index', () => bareSqlite.read(round));
  await measureService('SQLite', sqlite, measure);
  await measure('MongoDB, bare: transaction of two documents, majority, journaled', () => bareMongodb.write(round));
  await measure('MongoDB, bare: linearizable read by unique index', () => bareMongodb.read(round));
  const keyId = await measureService('MongoDB', mongodb, measure);
  const answered = performance.now();
  const seen = await revocations.of(keyId);
  if (round >= 0) record('MongoDB and Kafka: RevokeKey answered → its event read from the topic', seen - answered);
}

console.log(
  toTable(
    [`${rounds} rounds, one call at a time`, 'p50 ms', 'p99 ms', 'max ms'],
    [...samples].map(([what, values]) => [what, ...[0.5, 0.99, 1].map((share) => quantile(values, share).toFixed(2))]),
  ),
);

function record(what: string, ms: number): void {
  const values = samples.get(what);
  if (values) values.push(ms);
  else samples.set(what, [ms]);
}

async function measureService(
  name: string,
  { keys }: Service,
  measure: <T>(what: string, work: () => Promise<T>) => Promise<T>,
): Promise<string> {
  const { key, credential } = await measure(`${name}: CreateKey`, () =>
    call<CreateKeyResponse>((done) =>
      keys.createKey(CreateKeyRequest.fromPartial({ ...ORGANIZATION, actor: ACTOR, name: 'bench' }), done),
    ),
  );
  await measure(`${name}: VerifyKey`, () =>
    call<VerifyKeyResponse>((done) => keys.verifyKey(VerifyKeyRequest.fromPartial({ credential }), done)),
  );
  const keyId = key?.keyId ?? '';
  await measure(`${name}: RevokeKey`, () =>
    call<RevokeKeyResponse>((done) =>
      keys.revokeKey(
        RevokeKeyRequest.fromPartial({
          ...ORGANIZATION,
          actor: ACTOR,
          selector: { selector: { $case: 'keyId', value: keyId } },
        }),
        done,
      ),
    ),
  );
  return keyId;
}

/** Reads the topic from now on; `of` resolves with the moment at which the revocation of a key was seen there. */
async function watchRevocations(brokers: string[], name: string) {
  const consumer = new Kafka({ brokers, logLevel: logLevel.NOTHING }).consumer({
    groupId: `bench-${randomUUID()}`,
    maxWaitTimeInMs: 5,
  });
  const seen = new Map<string, number>();
  const waiting = new Map<string, (ms: number) => void>();
  await consumer.connect();
  await consumer.subscribe({ topic: name, fromBeginning: true });
  await consumer.run({
    eachMessage: ({ message }) => {
      const event = JSON.parse(message.value?.toString() ?? '{}') as {
        type: string;
        data: { key: { key_id: string } };
      };
      if (event.type === 'keyreeve.key.revoked') {
        const now = performance.now();
        const keyId = event.data.key.key_id;
        seen.set(keyId, now);
        waiting.get(keyId)?.(now);
      }
      return Promise.resolve();
    },
  });
  return {
    of: (keyId: string) => {
      const at = seen.get(keyId);
      return at === undefined ? new Promise<number>((resolve) => waiting.set(keyId, resolve)) : Promise.resolve(at);
    },
    [Symbol.asyncDispose]: () => consumer.disconnect(),
  };
}
