/**
 * How many keys CreateKey makes in a second and how long its callers wait, on both stacks, for 32 creators of one
 * organization and for one creator of each of 32, beside the bare engine's transaction under 32 writers:
 * `npm run bench:creates [-- --rounds N --seconds N]`. Each round measures everything once, every other one in reverse,
 * so that a machine whose speed drifts is slow for all alike. Prints a table; nothing is asserted.
 */
import { randomUUID } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate, setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { Kafka, logLevel } from 'kafkajs';
import { MongoClient } from 'mongodb';

import { ActorType } from '../../src/gen/keyreeve/v1/actor.js';
import { CreateKeyRequest, type CreateKeyResponse } from '../../src/gen/keyreeve/v1/key_service.js';
import { call } from '../support/call.js';
import { makeGuardedFolder } from '../support/guard.js';
import { type Service, startService } from '../support/service.js';
import { openSharedServers } from '../support/shared-servers.js';
import { openBareHeads, openBareSqlite } from './bare.js';
import { inDatabase, startReplicaSet } from './replica-set.js';
import { describeMachine, quantile, toTable } from './report.js';

const WRITERS = 32;
const ONE = 'acme';
const SEVERAL = Array.from({ length: WRITERS }, (_, writer) => `acme-${writer}`);
const ACTOR = { type: ActorType.USER, id: 'ada', permissions: [] };
const PUBLISHED_MS_MAX = 60_000;

/** What 32 writers do, each of them again and again. */
interface Case {
  readonly name: string;
  readonly work: (writer: number) => Promise<unknown>;
  /** Waits until what the work left to be done is done, which would slow down the next case. */
  readonly settle?: () => Promise<void>;
  /** What its throughput is compared with. */
  readonly beside: readonly Case[];
}

/** Its throughput in each round, and the waiting times of all of them. */
interface Measured {
  readonly perSecond: number[];
  readonly ms: number[];
}

const { values: options } = parseArgs({
  options: { rounds: { type: 'string', default: '5' }, seconds: { type: 'string', default: '1' } },
});
const rounds = Math.ceil(parsePositive('rounds', options.rounds));
const seconds = parsePositive('seconds', options.seconds);
const conditions = `${new Date().toISOString()}, ${describeMachine()}`;

await using folder = await makeGuardedFolder(join(tmpdir(), 'keyreeve-bench-'));
await using servers = await openSharedServers();
await using threeMembers = await startReplicaSet();
await using sqlite = await openSqliteCases(join(folder.path, 'bare.db'));
await using shared = await openMongodbCases(servers.mongodbUri, servers.kafkaBrokers);
await using three = await openMongodbCases(threeMembers.uri, servers.kafkaBrokers);
const cases = [...sqlite.cases, ...shared.cases, ...three.cases];
const measured = new Map<Case, Measured>(cases.map((one) => [one, { perSecond: [], ms: [] }]));

for (let round = 0; round <= rounds; round += 1) {
  console.error(round === 0 ? 'warming up' : `round ${round} of ${rounds}`);
  for (const one of round % 2 === 0 ? cases : cases.toReversed()) {
    const { perSecond, ms } = await load(one);
    if (round === 0) continue;
    measured.get(one)?.perSecond.push(perSecond);
    measured.get(one)?.ms.push(...ms);
  }
}

console.log(`npm run bench:creates -- --rounds ${rounds} --seconds ${seconds}`);
console.log(`${conditions}\n`);
console.log(
  toTable(
    ['#', `${WRITERS} writers`, 'a second', 'p50 ms', 'p99 ms', 'its share of what row # does a second (min–max)'],
    cases.map((one, at) => toRow(one, at)),
  ),
);
console.log(`\nA second and share: the median of ${rounds} rounds. A millisecond includes the wait for one's turn.`);

function toRow(one: Case, at: number): string[] {
  const { perSecond, ms } = resultsOf(one);
  const shares = one.beside.map((other) => {
    const ratios = resultsOf(other).perSecond.map((theirs, round) => (perSecond[round] ?? Number.NaN) / theirs);
    const [median, least, most] = [0.5, 0, 1].map((share) => quantile(ratios, share).toFixed(2));
    return `#${cases.indexOf(other) + 1}: ${median} (${least}–${most})`;
  });
  const [p50, p99] = [0.5, 0.99].map((share) => quantile(ms, share).toFixed(1));
  return [`${at + 1}`, one.name, quantile(perSecond, 0.5).toFixed(0), `${p50}`, `${p99}`, shares.join('; ')];
}

function resultsOf(one: Case): Measured {
  return measured.get(one) ?? { perSecond: [], ms: [] };
}

/** @throws Error if a call fails */
async function load({ work, settle }: Case): Promise<{ perSecond: number; ms: number[] }> {
  const beginMs = performance.now();
  const endMs = beginMs + seconds * 1000;
  const ms: number[] = [];
  // Up to its own last one's end: what is under way when the time is over would be missing from a count up to then.
  async function write(writer: number): Promise<number> {
    let count = 0;
    let doneMs = beginMs;
    while (doneMs < endMs) {
      const askedMs = performance.now();
      await work(writer);
      doneMs = performance.now();
      ms.push(doneMs - askedMs);
      count += 1;
    }
    return (count * 1000) / (doneMs - beginMs);
  }
  const perSecond = await Promise.all(Array.from({ length: WRITERS }, (_, writer) => write(writer)));
  await settle?.();
  return { perSecond: perSecond.reduce((sum, one) => sum + one), ms };
}

async function openSqliteCases(barePath: string) {
  const bare = openBareSqlite(barePath);
  let rows = 0;
  const inTurn = inLine(async () => {
    bare.write((rows += 1));
    // It blocks; what else happens in this process must not wait for the end of the round.
    await setImmediate();
  });
  const twoRows: Case = { name: 'SQLite, bare: two rows, durable, one after the other', work: inTurn, beside: [] };
  const service = await startService();
  const published = async () => {
    const file = await readFile(join(service.dataDir, 'audit.jsonl'));
    return file.reduce((lines, byte) => (byte === 0x0a ? lines + 1 : lines), 0);
  };
  return {
    cases: [twoRows, ...createCases('SQLite and file', service, published, [twoRows], [twoRows])],
    [Symbol.asyncDispose]: () => service[Symbol.asyncDispose](),
  };
}

/** @param uri names no database */
async function openMongodbCases(uri: string, brokers: string[]) {
  const run = randomUUID().slice(0, 8);
  const stack = `MongoDB (members: ${await countMembers(uri)})`;
  const bare = await openBareHeads(inDatabase(uri, `bare_${run}`), [ONE, ...SEVERAL]);
  const transaction = `${stack}, bare: transaction of two documents, majority, journaled`;
  const oneByOne: Case = {
    name: `${transaction}, one head, one after the other`,
    work: inLine(() => bare.advance(ONE)),
    beside: [],
  };
  const contended: Case = {
    name: `${transaction}, one head, all at once, repeated on conflict`,
    work: () => bare.advance(ONE),
    beside: [oneByOne],
  };
  const apart: Case = {
    name: `${transaction}, ${WRITERS} heads`,
    work: (writer) => bare.advance(SEVERAL[writer] ?? ONE),
    beside: [],
  };
  const topic = `bench.${run}`;
  const service = await startService({
    KEYREEVE_MONGODB_URI: inDatabase(uri, `bench_${run}`),
    KEYREEVE_KAFKA_BROKERS: brokers.join(),
    KEYREEVE_AUDIT_TOPIC: topic,
    KEYREEVE_KAFKA_ALLOW_SINGLE_BROKER: 'true',
  });
  const admin = new Kafka({ brokers, logLevel: logLevel.NOTHING }).admin();
  await admin.connect();
  const published = async () => {
    const partitions = await admin.fetchTopicOffsets(topic);
    return partitions.reduce((events, { high }) => events + Number(high), 0);
  };
  const creates = createCases(`${stack} and Kafka`, service, published, [oneByOne, contended], [apart]);
  return {
    cases: [oneByOne, contended, apart, ...creates],
    async [Symbol.asyncDispose]() {
      await service[Symbol.asyncDispose]();
      await admin.disconnect();
      await bare[Symbol.asyncDispose]();
    },
  };
}

/** @param published how many events the audit sink has by now */
function createCases(
  stack: string,
  { keys }: Service,
  published: () => Promise<number>,
  besideOne: readonly Case[],
  besideSeveral: readonly Case[],
): Case[] {
  let created = 0;
  async function create(organizationId: string): Promise<void> {
    const request = CreateKeyRequest.fromPartial({ keyspace: 'hygiara', organizationId, actor: ACTOR, name: 'bench' });
    await call<CreateKeyResponse>((done) => keys.createKey(request, done));
    created += 1;
  }
  async function settle(): Promise<void> {
    const endMs = performance.now() + PUBLISHED_MS_MAX;
    while ((await published()) < created) {
      if (performance.now() > endMs) throw new Error(`${stack}: its events are not published in time`);
      await delay(50);
    }
  }
  const name = `${stack}: CreateKey`;
  return [
    { name: `${name}, one organization`, work: () => create(ONE), settle, beside: besideOne },
    {
      name: `${name}, ${WRITERS} organizations`,
      work: (writer) => create(SEVERAL[writer] ?? ONE),
      settle,
      beside: besideSeveral,
    },
  ];
}

/** In the order of asking, each once the one before it is done. */
function inLine(work: () => Promise<void>): () => Promise<void> {
  let last = Promise.resolve();
  return () => (last = last.then(work));
}

async function countMembers(uri: string): Promise<number> {
  await using client = new MongoClient(uri);
  const { hosts } = (await client.db('admin').command({ hello: 1 })) as { hosts?: string[] };
  return hosts?.length ?? 0;
}

function parsePositive(option: string, value: string): number {
  const number = Number(value);
  if (number > 0 && Number.isFinite(number)) return number;
  throw new Error(`--${option}: a number greater than 0`);
}
