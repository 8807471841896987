/** The relay between real stores and a real Kafka, while parts of it are taken away: nothing is lost, and order holds. */
import { type ChildProcess, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath, pathToFileURL } from 'node:url';
import type { Logger } from 'pino';
import { expect, inject, test } from 'vitest';

import type { KafkaSettings } from '../../src/audit/kafka-client.js';
import { openKafkaSink } from '../../src/audit/kafka-sink.js';
import { readHeads } from '../../src/audit/read-store.js';
import { readTopic } from '../../src/audit/read-topic.js';
import { startRelay } from '../../src/audit/relay.js';
import { type Verdict, verifyChain } from '../../src/audit/verify-chain.js';
import { systemClock } from '../../src/keys/clock.js';
import type { Store } from '../../src/store/port.js';
import { captureLog, silentLog } from '../support/audit.js';
import { acme, aMutation, SOURCE } from '../support/domain.js';
import { guard, makeGuardedFolder } from '../support/guard.js';
import { type OwnKafka, startKafka } from '../support/kafka.js';
import { inOwnDatabase } from '../support/mongodb-store.js';
import { openStoreAt, type StorePlace } from '../support/open-store.js';
import { pause, resume } from '../support/pause.js';
import type { RelayPlace } from '../support/relay-process.js';
import { create, revoke } from '../support/store-calls.js';

const TEST_MS = 120_000;
const LEADS = 'publishes from now on';

test.each<[string, (kafka: OwnKafka) => Promise<void>, (kafka: OwnKafka) => unknown]>([
  ['is stopped', (kafka) => kafka.stop(), (kafka) => kafka.restart()],
  ['is killed', (kafka) => kafka.kill(), (kafka) => kafka.restart()],
  ['hangs', (kafka) => pause(kafka.pid), (kafka) => resume(kafka.pid)],
])('a broker that %s costs depth and nothing else', { timeout: TEST_MS }, async (_, takeAway, giveBack) => {
  await using kafka = await startKafka();
  await using folder = await makeGuardedFolder(join(tmpdir(), 'keyreeve-relay-'));
  await using store = await openStoreAt({ engine: 'sqlite', dataDir: folder.path });
  const settings: KafkaSettings = { brokers: kafka.brokers, topic: 'audit', allowSingleBroker: true };
  const { log, lines } = captureLog();
  const told = () => lines.map(({ msg }) => msg).join('\n');
  await using relay = await startRelay(await parts(store, settings, log));
  await using changes = makeChanges(store);

  await changes.more(20);
  await takeAway(kafka);
  await changes.more(50);
  await expect.poll(told).toContain('the sink takes no events');
  await expect.poll(() => relay.backlog.depth).toBeGreaterThan(20);
  await giveBack(kafka);
  await changes.more(20);
  await changes.stop();
  await expect.poll(() => depthOf(store)).toBe(0);
  await expectWhole(store, settings);
  expect(told()).toContain('the sink takes events again');
});

test('of two replicas one publishes; when it is killed the other goes on', { timeout: TEST_MS }, async () => {
  await using replicas = await openReplicas();
  await using first = await replicas.startUntil(LEADS);
  await using second = await replicas.startUntil('started');
  await replicas.changes.more(50);
  await first.kill();
  await replicas.changes.more(50);
  await second.says(LEADS);
  await replicas.changes.more(50);
  await replicas.settle();
});

test('a leader that is paused beyond its leadership repeats at most', { timeout: TEST_MS }, async () => {
  await using replicas = await openReplicas();
  await using first = await replicas.startUntil(LEADS);
  await using second = await replicas.startUntil('started');
  await replicas.changes.more(30);
  await pause(first.pid);
  await replicas.changes.more(30);
  await second.says(LEADS);
  await replicas.changes.more(30);
  resume(first.pid);
  await first.says('publishes no more');
  await replicas.changes.more(30);
  await replicas.settle();
});

test('a leader that is told to stop leaves without repeats, and is followed', { timeout: TEST_MS }, async () => {
  await using replicas = await openReplicas();
  await using first = await replicas.startUntil(LEADS);
  await using second = await replicas.startUntil('started');
  await replicas.changes.more(30);
  await first.stop();
  await second.says(LEADS);
  await replicas.changes.more(30);
  expect((await replicas.settle()).repeats).toBe(0);
});

test('what nobody publishes for a while all comes out once somebody does', { timeout: TEST_MS }, async () => {
  await using replicas = await openReplicas();
  await replicas.changes.more(100);
  await using late = await replicas.startUntil('started');
  await late.says(LEADS);
  await replicas.settle();
});

async function parts(store: Store, settings: KafkaSettings, log: Logger) {
  const sink = await openKafkaSink(settings, log);
  return { outbox: store.outbox, sink, backlogMax: 1_000_000, clock: systemClock, log };
}

async function depthOf(store: Store): Promise<number> {
  return (await store.outbox.backlog(1)).depth;
}

interface Changes extends AsyncDisposable {
  /** Resolves when so many more have been committed. */
  more(count: number): Promise<void>;
  stop(): Promise<void>;
}

/** Creates and revokes keys of a few organizations until it is stopped. */
function makeChanges(store: Store): Changes {
  const organizations = ['a', 'b', 'c', 'd', 'e'].map((organizationId) => ({ ...acme, organizationId }));
  const waiting: { count: number; done: () => void }[] = [];
  const stopping = new AbortController();
  let committed = 0;
  const tell = () => {
    committed += 1;
    for (const { count, done } of waiting) if (committed >= count) done();
  };
  const working = Promise.all(
    organizations.map(async (organization) => {
      while (!stopping.signal.aborted) {
        const key = await create(store, { ask: { mutation: aMutation({ organization }) } });
        tell();
        await revoke(store, key);
        tell();
        // So many that a test has something to look at, and not so many that it is about throughput.
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    }),
  );
  async function stop() {
    stopping.abort();
    await working;
  }
  return {
    async more(count) {
      const enough = new Promise<void>((done) => waiting.push({ count: committed + count, done }));
      await Promise.race([enough, working]);
    },
    stop,
    [Symbol.asyncDispose]: stop,
  };
}

interface Replicas extends AsyncDisposable {
  readonly changes: Changes;
  /** Resolves once its log says so. */
  startUntil(words: string): Promise<ReplicaProcess>;
  /** Stops the changes, waits until everything is published, and answers what the topic holds then: nothing wrong. */
  settle(): Promise<Verdict>;
}

/** One database, one topic, and a store here that makes changes. */
async function openReplicas(): Promise<Replicas> {
  const place: StorePlace = { engine: 'mongodb', uri: inOwnDatabase(inject('mongodbUri')) };
  const kafka = { brokers: inject('kafkaBrokers'), topic: `audit-${randomUUID()}`, allowSingleBroker: true };
  const store = await openStoreAt(place);
  const changes = makeChanges(store);
  return {
    changes,
    async startUntil(words) {
      const replica = startReplica({ store: place, kafka });
      await replica.says(words);
      return replica;
    },
    async settle() {
      await changes.stop();
      await expect.poll(() => depthOf(store)).toBe(0);
      return expectWhole(store, kafka);
    },
    async [Symbol.asyncDispose]() {
      await changes.stop();
      await store[Symbol.asyncDispose]();
    },
  };
}

async function expectWhole(store: Store, settings: KafkaSettings): Promise<Verdict> {
  const heads = await readHeads(store);
  const events = [...heads.values()].reduce((sum, { sequence }) => sum + sequence, 0);
  const verdict = await verifyChain(readTopic(settings, silentLog), { source: SOURCE, repeats: 'counted', heads });
  expect(verdict.faults).toEqual([]);
  expect(verdict.events - verdict.repeats).toBe(events);
  return verdict;
}

interface ReplicaProcess extends AsyncDisposable {
  readonly pid: number;
  /** Resolves once its log says so. */
  says(words: string): Promise<void>;
  stop(): Promise<void>;
  kill(): Promise<void>;
}

const TSX = pathToFileURL(createRequire(import.meta.url).resolve('tsx')).href;
const PROGRAM = fileURLToPath(new URL('../support/relay-process.ts', import.meta.url));

function startReplica(place: RelayPlace): ReplicaProcess {
  const child = spawn(process.execPath, ['--import', TSX, PROGRAM, JSON.stringify(place)], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const { pid } = child;
  if (pid === undefined) throw new Error('the replica cannot be started');
  const guarded = guard({ pid });
  const said: string[] = [];
  createInterface(child.stdout).on('line', (line) => said.push(line));
  async function kill() {
    await end(child);
    guarded.release();
  }
  return {
    pid,
    says: (words) => expect.poll(() => said.join('\n'), { interval: 50 }).toContain(words),
    async stop() {
      const exited = once(child, 'exit');
      child.stdin.end();
      await exited;
    },
    kill,
    [Symbol.asyncDispose]: kill,
  };
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = once(child, 'exit');
  child.kill('SIGKILL');
  await exited;
}
