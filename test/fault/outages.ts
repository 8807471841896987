/** Outages that are measured, under as many writes as the stack takes: how long nothing is written, and what waits. */
import { setTimeout as sleep } from 'node:timers/promises';
import { Metadata } from '@grpc/grpc-js';
import { MongoClient } from 'mongodb';

import type { Entry } from '../../src/audit/verify-chain.js';
import { verifyChain } from '../../src/audit/verify-chain.js';
import { ActorType } from '../../src/gen/keyreeve/v1/actor.js';
import { CreateKeyRequest, type CreateKeyResponse } from '../../src/gen/keyreeve/v1/key_service.js';
import { call } from '../support/call.js';
import { History } from '../support/history.js';
import { Clients, type Replica } from './clients.js';
import { type ReplicatedStack, startReplicatedStack } from './stack.js';

const WRITERS = 32;
const KEYSPACE = 'open';
const ORGANIZATIONS = Array.from({ length: WRITERS }, (_, at) => `acme-${at}`);
const CALL_MS = 4000;
const RETRY_MS = 50;
const WARM_WRITES = 500;
const MINUTE_MS = 60_000;
const LOOK_MS = 100;
/** Draining goes on as long as it comes on; this is for one that does not. */
const STUCK_MS = 300_000;

type Say = (line: string) => void;

export interface KafkaOutage {
  readonly minutesAway: number;
  /** Keys that were acknowledged, and how many a second while Kafka was away. */
  readonly acknowledged: number;
  readonly perSecondAway: number;
  /** Calls that failed, by their code. */
  readonly failed: Readonly<Record<string, number>>;
  /** How many events were unpublished when Kafka came back. */
  readonly depthMax: number;
  /** From when Kafka answered again, with no more writes, until all was published. */
  readonly drainSeconds: number;
  readonly events: number;
  /** Acknowledged keys without an event, and places of chains that no event has. */
  readonly lost: number;
  readonly repeated: number;
  /** Whatever else is wrong with the chains. */
  readonly otherFaults: readonly string[];
}

/** Kills Kafka, writes on for so long, and brings it back. */
export async function measureKafkaOutage(minutes: number, say: Say): Promise<KafkaOutage> {
  await using stack = await startReplicatedStack({});
  await using client = new MongoClient(stack.mongodb.uri);
  const events = client.db('keyreeve').collection('events');
  const countUnpublished = () => events.countDocuments({ published: false });

  const writers = startWriters(stack.replicas);
  await writers.advance(WARM_WRITES);
  await stack.kafka.kill();
  const before = writers.acknowledged.size;
  const awayMs = minutes * MINUTE_MS;
  const endMs = performance.now() + awayMs;
  while (performance.now() < endMs) {
    await sleep(Math.min(MINUTE_MS, Math.max(0, endMs - performance.now())));
    say(`${writers.acknowledged.size} keys, ${await countUnpublished()} events wait`);
  }
  const perSecondAway = Math.round(((writers.acknowledged.size - before) / awayMs) * 1000);
  await writers.stop();
  const depthMax = await countUnpublished();
  await stack.kafka.restart();
  const drainSeconds = await drained(countUnpublished);
  say(`published after ${drainSeconds} s`);
  return {
    minutesAway: minutes,
    acknowledged: writers.acknowledged.size,
    perSecondAway,
    failed: Object.fromEntries(writers.failed),
    depthMax,
    drainSeconds,
    ...(await compare(stack, writers.acknowledged)),
  };
}

/** @returns after how many seconds nothing was left */
async function drained(countUnpublished: () => Promise<number>): Promise<number> {
  const beganMs = performance.now();
  let least = Number.POSITIVE_INFINITY;
  let leastMs = beganMs;
  for (;;) {
    const left = await countUnpublished();
    const nowMs = performance.now();
    if (left === 0) return Math.round((nowMs - beganMs) / 100) / 10;
    if (left < least) {
      least = left;
      leastMs = nowMs;
    } else if (nowMs - leastMs > STUCK_MS) throw new Error(`${left} events are not published`);
    await sleep(LOOK_MS);
  }
}

/** What was published, held against what was acknowledged, without keeping all of it. */
async function compare(stack: ReplicatedStack, acknowledged: ReadonlySet<string>) {
  using clients = new Clients(stack.replicas, new History());
  const heads = await clients.readHeads(ORGANIZATIONS.map((organization) => `${KEYSPACE}/${organization}`));
  const missing = new Set(acknowledged);
  async function* seen(entries: AsyncIterable<Entry>): AsyncGenerator<Entry> {
    for await (const entry of entries) {
      const { data } = JSON.parse(entry.text) as { data: { key?: { key_id: string } } };
      if (data.key) missing.delete(data.key.key_id);
      yield entry;
    }
  }
  const verdict = await verifyChain(seen(stack.entries()), { repeats: 'counted', heads });
  const gaps = verdict.faults.filter(({ kind }) => kind === 'gap' || kind === 'tail');
  return {
    events: verdict.events - verdict.repeats,
    lost: missing.size + gaps.length,
    repeated: verdict.repeats,
    otherFaults: verdict.faults.filter((fault) => !gaps.includes(fault)).map(({ message }) => message),
  };
}

export interface PrimaryKills {
  readonly kills: number;
  /** The longest pause between two acknowledged writes around each kill. */
  readonly medianSeconds: number;
  readonly maxSeconds: number;
  readonly pausesSeconds: readonly number[];
  readonly acknowledged: number;
  readonly failed: Readonly<Record<string, number>>;
}

/** Kills the primary again and again, each time when the set is whole. */
export async function measurePrimaryKills(kills: number, say: Say): Promise<PrimaryKills> {
  await using stack = await startReplicatedStack({});
  const { mongodb } = stack;
  const writers = startWriters(stack.replicas);
  const pauses: number[] = [];
  while (pauses.length < kills) {
    await writers.advance(WARM_WRITES);
    const old = await mongodb.primary();
    writers.watchPauses();
    await old.kill();
    await writers.advanceAnew();
    const seconds = Math.round(writers.longestPauseMs / 100) / 10;
    pauses.push(seconds);
    say(`${pauses.length}/${kills}: ${seconds} s without a write`);
    await old.restart();
    await mongodb.whole();
  }
  await writers.stop();
  const sorted = [...pauses].sort((a, b) => a - b);
  return {
    kills,
    medianSeconds: sorted[Math.floor(sorted.length / 2)] ?? 0,
    maxSeconds: sorted.at(-1) ?? 0,
    pausesSeconds: pauses,
    acknowledged: writers.acknowledged.size,
    failed: Object.fromEntries(writers.failed),
  };
}

interface Writers {
  /** By their key ids. */
  readonly acknowledged: ReadonlySet<string>;
  readonly failed: ReadonlyMap<string, number>;
  /** Between two acknowledgements, since the last `watchPauses`. */
  readonly longestPauseMs: number;
  watchPauses(): void;
  /** Resolves once so many more are acknowledged. */
  advance(by: number): Promise<void>;
  /** Resolves once one is acknowledged that was asked for after this call. */
  advanceAnew(): Promise<void>;
  stop(): Promise<void>;
}

/** Each creates keys in an organization of its own, one after the other and without a rest. */
function startWriters(replicas: readonly Replica[]): Writers {
  const acknowledged = new Set<string>();
  const failed = new Map<string, number>();
  let over = false;
  let lastMs = performance.now();
  let lastBegunMs = Number.NEGATIVE_INFINITY;
  let longestPauseMs = 0;

  function tellSuccess(keyId: string, begunMs: number): void {
    const nowMs = performance.now();
    acknowledged.add(keyId);
    longestPauseMs = Math.max(longestPauseMs, nowMs - lastMs);
    lastMs = nowMs;
    lastBegunMs = Math.max(lastBegunMs, begunMs);
  }
  async function write(organizationId: string, at: number): Promise<void> {
    const replica = replicas[at % replicas.length];
    if (!replica) throw new Error('there is no replica to write to');
    const actor = { type: ActorType.USER, id: 'ada', permissions: [] };
    const ask = CreateKeyRequest.fromPartial({ keyspace: KEYSPACE, organizationId, actor, name: 'key' });
    while (!over) {
      const begunMs = performance.now();
      try {
        const { key } = await call<CreateKeyResponse>((done) =>
          replica.keys.createKey(ask, new Metadata(), { deadline: Date.now() + CALL_MS }, done),
        );
        tellSuccess(key?.keyId ?? '', begunMs);
      } catch (error) {
        const code = error instanceof Error && 'code' in error ? String(error.code) : 'unknown';
        failed.set(code, (failed.get(code) ?? 0) + 1);
        await sleep(RETRY_MS);
      }
    }
  }
  async function until(condition: () => boolean): Promise<void> {
    while (!condition()) await sleep(LOOK_MS);
  }

  const loops = ORGANIZATIONS.map(write);
  return {
    acknowledged,
    failed,
    get longestPauseMs() {
      return longestPauseMs;
    },
    watchPauses() {
      longestPauseMs = 0;
    },
    advance(by) {
      const goal = acknowledged.size + by;
      return until(() => acknowledged.size >= goal);
    },
    advanceAnew() {
      const fromMs = performance.now();
      return until(() => lastBegunMs > fromMs);
    },
    async stop() {
      over = true;
      await Promise.all(loops);
    },
  };
}
