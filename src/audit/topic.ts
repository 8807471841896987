/**
 * The audit topic must neither lose events nor change their order. A missing one is made so; one that is there is
 * checked, and every problem told at once.
 */
import kafkajs, { type Admin } from 'kafkajs';
import type { Logger } from 'pino';

import { counted } from '../counted.js';
import { within } from '../within.js';
import { createKafkaClient, type KafkaSettings } from './kafka-client.js';
import { SinkFault } from './sink.js';

// Node finds these names on the default export alone.
const { ConfigResourceTypes, KafkaJSAggregateError, KafkaJSProtocolError } = kafkajs;

/** Fixed: the partition of an organization follows from their number, and another one would break its order. */
export const TOPIC_PARTITIONS = 12;

const REPLICATION = 3;
const IN_SYNC_MIN = 2;
/** Twice the largest event. */
const MESSAGE_BYTES_MIN = 64 * 1024;

const KEPT_FOR_EVER = {
  'cleanup.policy': 'delete',
  'retention.ms': '-1',
  'retention.bytes': '-1',
  'unclean.leader.election.enable': 'false',
} as const;

const WHY: Record<keyof typeof KEPT_FOR_EVER, string> = {
  'cleanup.policy': 'compaction removes events',
  'retention.ms': 'old events would be deleted',
  'retention.bytes': 'old events would be deleted',
  'unclean.leader.election.enable': 'a replica that lacks events could become leader',
};

/** What there is to know about a topic and its cluster. */
export interface FoundTopic {
  readonly brokers: number;
  readonly partitions: number;
  /** Of the partition with the fewest. */
  readonly replication: number;
  /** Effective settings by Kafka's names. */
  readonly config: ReadonlyMap<string, string>;
}

export interface TopicFacts {
  /** The largest batch that the brokers take. */
  readonly messageBytesMax: number;
}

const CHECK_MS = 10_000;
const SETTLE_MS = 100;

/**
 * Makes the topic if it is missing and `create` says so, and checks it.
 * @param signal abandons it
 * @throws SinkFault `unavailable` where Kafka could not be asked, `refused` with every problem where the topic is not fit
 */
export async function ensureTopic(
  settings: KafkaSettings,
  { create, signal }: { create: boolean; signal: AbortSignal },
  log: Logger,
): Promise<TopicFacts> {
  const client = createKafkaClient(settings, log);
  const admin = client.kafka.admin();
  try {
    return await within(CHECK_MS, check(admin, settings, create, log), { signal });
  } catch (error) {
    throw error instanceof SinkFault ? error : toFault(error, settings);
  } finally {
    await client.close(admin);
  }
}

async function check(admin: Admin, settings: KafkaSettings, create: boolean, log: Logger): Promise<TopicFacts> {
  await admin.connect();
  const brokers = (await admin.describeCluster()).brokers.length;
  if (!(await isThere(admin, settings.topic))) {
    if (!create) throw refusal(settings, ['it is gone, and the events in it; restarting Keyreeve makes a new one']);
    await createTopic(admin, settings, brokers);
    log.info({ topic: settings.topic }, 'audit topic: made');
  }
  const found = await describe(admin, settings.topic, brokers);
  const problems = judgeTopic(found, settings);
  if (problems.length > 0) throw refusal(settings, problems);
  return { messageBytesMax: Number(found.config.get('max.message.bytes')) };
}

/** What is wrong with it, and the way out; empty when it is fit. */
export function judgeTopic(
  found: FoundTopic,
  { allowSingleBroker }: Pick<KafkaSettings, 'allowSingleBroker'>,
): string[] {
  const { config, partitions, replication, brokers } = found;
  const problems: string[] = [];
  const excused = allowSingleBroker && brokers < REPLICATION;
  const excuse = brokers < REPLICATION ? `; ${ALLOW_SINGLE_BROKER}` : '';
  const inSync = Number(config.get('min.insync.replicas'));

  if (partitions !== TOPIC_PARTITIONS) {
    problems.push(
      `it has ${partitions} partitions, expected ${TOPIC_PARTITIONS}, by which organizations find theirs; ` +
        'name another topic in KEYREEVE_AUDIT_TOPIC',
    );
  }
  if (replication < REPLICATION && !excused) {
    problems.push(
      `it has ${counted(replication, 'replica')}, expected ${REPLICATION}: a broker's disk could take events with it; ` +
        `add replicas with kafka-reassign-partitions${excuse}`,
    );
  }
  if (!(inSync >= IN_SYNC_MIN) && !excused) {
    problems.push(
      `min.insync.replicas is ${inSync}, expected ${IN_SYNC_MIN}: an event would count as kept with one copy of it; ` +
        `set it with kafka-configs${excuse}`,
    );
  }
  if (inSync > replication) {
    problems.push(
      `min.insync.replicas is ${inSync}, more than there are replicas (${replication}): no event can be written`,
    );
  }
  for (const [name, expected] of Object.entries(KEPT_FOR_EVER)) {
    const value = config.get(name);
    if (value === expected) continue;
    const why = WHY[name as keyof typeof KEPT_FOR_EVER];
    problems.push(`${name} is ${value ?? 'unknown'}, expected ${expected}: ${why}; set it with kafka-configs`);
  }
  if (!(Number(config.get('max.message.bytes')) >= MESSAGE_BYTES_MIN)) {
    problems.push(
      `max.message.bytes is less than ${MESSAGE_BYTES_MIN}, which events may need; set it with kafka-configs`,
    );
  }
  return problems;
}

const ALLOW_SINGLE_BROKER = 'for development on a single broker set KEYREEVE_KAFKA_ALLOW_SINGLE_BROKER=true';

async function isThere(admin: Admin, topic: string): Promise<boolean> {
  // Asking for it by name fails inside kafkajs where it is missing.
  return (await admin.listTopics()).includes(topic);
}

async function createTopic(admin: Admin, settings: KafkaSettings, brokers: number): Promise<void> {
  const { topic, allowSingleBroker } = settings;
  const alone = allowSingleBroker && brokers < REPLICATION;
  if (brokers < REPLICATION && !alone) {
    throw refusal(settings, [
      `it is missing, and to make it with ${REPLICATION} replicas takes as many brokers, of which ${counted(brokers, 'answers', 'answer')}; ` +
        ALLOW_SINGLE_BROKER,
    ]);
  }
  const config = { ...KEPT_FOR_EVER, 'min.insync.replicas': String(alone ? 1 : IN_SYNC_MIN) };
  const configEntries = Object.entries(config).map(([name, value]) => ({ name, value }));
  // Another replica of Keyreeve may make it at the same time: then it is there, and checked like any.
  await admin.createTopics({
    topics: [{ topic, numPartitions: TOPIC_PARTITIONS, replicationFactor: alone ? 1 : REPLICATION, configEntries }],
    // It gives up where the brokers do not know the topic yet.
    waitForLeaders: false,
  });
}

async function describe(admin: Admin, topic: string, brokers: number): Promise<FoundTopic> {
  await settle(admin, topic);
  const { topics } = await admin.fetchTopicMetadata({ topics: [topic] });
  const { resources } = await admin.describeConfigs({
    resources: [{ type: ConfigResourceTypes.TOPIC, name: topic }],
    includeSynonyms: false,
  });
  const partitions = topics[0]?.partitions ?? [];
  const entries = resources[0]?.configEntries ?? [];
  return {
    brokers,
    partitions: partitions.length,
    replication: Math.min(...partitions.map(({ replicas }) => replicas.length)),
    config: new Map(entries.map(({ configName, configValue }) => [configName, configValue])),
  };
}

/** A new topic becomes known to the brokers one after the other, and its leaders to themselves. */
async function settle(admin: Admin, topic: string): Promise<void> {
  for (;;) {
    try {
      if (await isThere(admin, topic)) {
        await admin.fetchTopicOffsets(topic);
        return;
      }
    } catch (error) {
      if (!(error instanceof KafkaJSProtocolError && error.retriable)) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
  }
}

function refusal({ topic }: KafkaSettings, problems: readonly string[]): SinkFault {
  const list = problems.map((problem) => `\n  - ${problem}`).join('');
  return new SinkFault('refused', `the audit topic ${topic} is not fit to keep events:${list}`);
}

function toFault(error: unknown, settings: KafkaSettings): SinkFault {
  const cause = error instanceof KafkaJSAggregateError ? error.errors[0] : error;
  if (cause instanceof KafkaJSProtocolError && !cause.retriable) {
    return refusal(settings, [
      `Kafka answers ${cause.type}: ${cause.message}; Keyreeve must be allowed to describe it and its configuration, ` +
        'to write to it, and, while it is missing, to create it',
    ]);
  }
  const message = cause instanceof Error ? cause.message : 'unknown error';
  return new SinkFault('unavailable', `Kafka could not be asked about the audit topic: ${message}`, { cause: error });
}
