import { randomUUID } from 'node:crypto';
import kafkajs, { type Admin, type Consumer, type KafkaMessage } from 'kafkajs';
import type { Logger } from 'pino';

import { TookTooLong, within } from '../within.js';
import { Handover } from './handover.js';
import { createKafkaClient, type KafkaSettings } from './kafka-client.js';
import type { Entry } from './verify-chain.js';

// Node finds this name on the default export alone.
const { KafkaJSConnectionError, KafkaJSError, KafkaJSProtocolError } = kafkajs;

const ASK_MS = 10_000;
const ASK_AGAIN_MS = 100;
/** Less than `ASK_MS`, so that the last answer says why there is none. */
const ASKED_AGAIN_MS = 8000;
const STALL_MS = 30_000;
/** The first group of a cluster, or one whose coordinator has just moved, has to wait for it. */
const GROUP_RETRIES = 30;
const BEGIN_MS = 30_000;
/** A consumer whose group fell apart, or whose connection was closed, while it began is replaced by another one. */
const BEGINNINGS_MAX = 5;
const LEAVE_MS = 5000;
/** How long a broker holds back an empty answer, and so how long leaving takes. */
const FETCH_WAIT_MS = 200;

/**
 * A topic's messages from the beginning up to where it ended when the reading began, each partition's in order. Reads
 * through a consumer group of its own, commits nothing, and deletes the group at the end.
 * @throws Error where the topic cannot be read to that end
 */
export async function* readTopic(settings: TopicSettings, log: Logger): AsyncGenerator<Entry> {
  yield* readRanges(settings, await findRanges(settings, new Map(), log), log);
}

/** What to read of a partition: the offset of the next message, and where to stop. */
export interface Range {
  readonly next: bigint;
  readonly end: bigint;
}

/**
 * Of each partition, what lies behind its position. One without a position, or with one beyond the partition's end, is to
 * be read from its beginning.
 * @throws Error where there is no such topic, or Kafka does not answer
 */
export function findRanges(
  settings: TopicSettings,
  positions: ReadonlyMap<number, number>,
  log: Logger,
): Promise<Map<number, Range>> {
  const { topic } = settings;
  return asking(settings, log, async (admin) => {
    if (!(await topicsOf(admin)).includes(topic)) {
      throw new Error(`there is no topic ${topic}, or it may not be described`);
    }
    const offsets = await admin.fetchTopicOffsets(topic);
    return new Map(
      offsets.map(({ partition, low, high }) => {
        const [first, end] = [BigInt(low), BigInt(high)];
        const position = BigInt(positions.get(partition) ?? 0);
        return [partition, { next: position >= first && position <= end ? position : first, end }];
      }),
    );
  });
}

/** A topic's messages in these ranges of offsets, each partition's in order; as `readTopic` otherwise. */
export async function* readRanges(
  settings: TopicSettings,
  ranges: ReadonlyMap<number, Range>,
  log: Logger,
): AsyncGenerator<Entry> {
  if ([...ranges.values()].every(({ next, end }) => next >= end)) return;
  for (let beginning = 1; ; beginning += 1) {
    try {
      yield* readOnce(settings, ranges, log);
      return;
    } catch (error) {
      if (!(error instanceof NotBegun) || beginning === BEGINNINGS_MAX) throw error;
      log.debug({ err: error, beginning }, 'audit topic: the reading begins anew');
    }
  }
}

/** Nothing was read yet: kafkajs lost its connection, or the group between joining it and being told where to begin. */
class NotBegun extends Error {
  override readonly name = 'NotBegun';
}

async function* readOnce(
  settings: TopicSettings,
  ranges: ReadonlyMap<number, Range>,
  log: Logger,
): AsyncGenerator<Entry> {
  const { topic } = settings;
  const unread = new Map(
    [...ranges].filter(([, { next, end }]) => next < end).map(([at, range]) => [at, { ...range }]),
  );
  const total = [...unread.values()].reduce((sum, { next, end }) => sum + Number(end - next), 0);
  const groupId = `keyreeve-audit-verify-${randomUUID()}`;
  const client = createKafkaClient(settings, log, { retries: GROUP_RETRIES });
  const batches = new Handover<Batch>();
  const consumer = client.kafka.consumer({
    groupId,
    allowAutoTopicCreation: false,
    maxWaitTimeInMs: FETCH_WAIT_MS,
    // What a transaction took back is a finding too.
    readUncommitted: true,
    retry: { restartOnFailure: () => Promise.resolve(!batches.closed) },
  });
  let read = 0;
  try {
    try {
      await within(BEGIN_MS, begin(consumer, topic, batches));
    } catch (error) {
      // After some questions kafkajs does not ask again itself; where it has, it says so by another error.
      if (!(error instanceof KafkaJSConnectionError)) throw error;
      throw new NotBegun(`the topic ${topic} cannot be read: ${error.message}`, { cause: error });
    }
    // One that begins anew, or that has fetched before this, reads more than is wanted, which is passed over.
    try {
      for (const [partition, { next, end }] of ranges) {
        consumer.seek({ topic, partition, offset: String(next < end ? next : end) });
      }
    } catch (error) {
      throw new NotBegun(`the topic ${topic} cannot be read: the consumer's group fell apart`, { cause: error });
    }
    while (unread.size > 0) {
      const { partition, messages, lastOffset } = await within(STALL_MS, batches.take());
      const range = unread.get(partition);
      if (!range) continue;
      for (const message of messages) {
        const offset = BigInt(message.offset);
        // A consumer that begins anew begins at the beginning.
        if (offset < range.next) continue;
        if (offset >= range.end) break;
        range.next = offset + 1n;
        read += 1;
        yield toEntry(message, partition, Math.min(1, read / total));
      }
      if (lastOffset + 1n >= range.end) unread.delete(partition);
    }
  } catch (error) {
    if (!(error instanceof TookTooLong)) throw error;
    throw new Error(`the topic ${topic} cannot be read to its end: Kafka gave nothing more`, { cause: error });
  } finally {
    batches.close();
    // A consumer that does not leave is dropped with its connections, and Kafka forgets it in time.
    await within(LEAVE_MS, consumer.disconnect()).catch(() => undefined);
    await client.close(consumer);
    await asking(settings, log, (admin) => admin.deleteGroups([groupId])).catch((error: unknown) => {
      log.debug({ err: error, groupId }, 'audit topic: the group of this reading stays behind until Kafka removes it');
    });
  }
}

interface Batch {
  readonly partition: number;
  readonly messages: readonly KafkaMessage[];
  readonly lastOffset: bigint;
}

type TopicSettings = Omit<KafkaSettings, 'allowSingleBroker'>;

async function asking<T>(settings: TopicSettings, log: Logger, question: (admin: Admin) => Promise<T>): Promise<T> {
  const client = createKafkaClient(settings, log);
  const admin = client.kafka.admin();
  const late = new AbortController();
  try {
    return await within(ASK_MS, untilAnswered(admin, question, late.signal));
  } finally {
    late.abort();
    await client.close(admin);
  }
}

/**
 * A new topic, or one whose leaders are changing, is not known to every broker at once, and brokers that are stopped, or
 * shed idle connections, hang up.
 */
async function untilAnswered<T>(admin: Admin, question: (admin: Admin) => Promise<T>, late: AbortSignal): Promise<T> {
  await admin.connect();
  const endMs = performance.now() + ASKED_AGAIN_MS;
  for (;;) {
    try {
      return await question(admin);
    } catch (error) {
      if (late.aborted || performance.now() > endMs || !isPassing(error)) throw error;
      await new Promise((resolve) => setTimeout(resolve, ASK_AGAIN_MS));
    }
  }
}

/** kafkajs gives up sooner than an election ends, and wraps the answer then. */
function isPassing(error: unknown): boolean {
  const cause = error instanceof KafkaJSError ? (error.cause ?? error) : error;
  if (cause instanceof KafkaJSProtocolError) return cause.retriable;
  return cause instanceof KafkaJSConnectionError || cause instanceof NoAnswer;
}

class NoAnswer extends Error {
  override readonly name = 'NoAnswer';
}

async function topicsOf(admin: Admin): Promise<string[]> {
  try {
    return await admin.listTopics();
  } catch (error) {
    // kafkajs asks one broker after the other, and takes an answer apart that none has given.
    if (!(error instanceof TypeError)) throw error;
    throw new NoAnswer('no broker answered which topics there are', { cause: error });
  }
}

async function begin(consumer: Consumer, topic: string, batches: Handover<Batch>): Promise<void> {
  // Where kafkajs expects better, it begins anew by itself.
  consumer.on(consumer.events.CRASH, ({ payload: { error, restart } }) => {
    if (!restart) batches.fail(error);
  });
  // A batch of control records alone is not given to `eachBatch`, and may be a partition's last.
  consumer.on(consumer.events.END_BATCH_PROCESS, ({ payload: { partition, lastOffset } }) => {
    void batches.give({ partition, messages: [], lastOffset: BigInt(lastOffset) });
  });
  await consumer.connect();
  await consumer.subscribe({ topic, fromBeginning: true });
  await consumer.run({
    autoCommit: false,
    eachBatch: ({ batch }) =>
      batches.give({ partition: batch.partition, messages: batch.messages, lastOffset: BigInt(batch.lastOffset()) }),
  });
}

function toEntry({ key, value, offset }: KafkaMessage, partition: number, share: number): Entry {
  return {
    text: value?.toString('utf8') ?? '',
    position: `partition ${partition} offset ${offset}`,
    claims: { organization: key?.toString('utf8') ?? '', partition },
    share,
  };
}
