/**
 * The audit topic. Each partition has a producer of its own with one send in flight: kafkajs reorders concurrent ones,
 * and a partition that hangs must not hold up another on the same connection. A producer that failed once is not used
 * again.
 */
import kafkajs, { Partitioners, type Producer } from 'kafkajs';
import type { Logger } from 'pino';

import type { AuditEvent } from '../keys/event.js';
import { type OrganizationRef, organizationPath } from '../keys/organization.js';
import { within } from '../within.js';
import { createKafkaClient, type KafkaClient, type KafkaSettings } from './kafka-client.js';
import { findRanges, readRanges } from './read-topic.js';
import { type ReadableSink, SinkFault, type SinkReading } from './sink.js';
import { ensureTopic, TOPIC_PARTITIONS } from './topic.js';

// Node finds these names on the default export alone.
const { KafkaJSError, KafkaJSProtocolError } = kafkajs;

/** Below the megabyte that brokers take unless told otherwise. */
const BATCH_BYTES_MAX = 900_000;
/** What a batch takes beside its events. */
const BATCH_OVERHEAD_BYTES = 1024;

const CONTENT_TYPE = 'application/cloudevents+json; charset=UTF-8';

/**
 * Checks the topic and makes it if it is missing. While Kafka cannot be reached the sink opens nevertheless, since
 * revoking must go on; it then checks before it publishes anything.
 * @throws SinkFault where the topic is there and would lose events or break their order: every problem in its message
 */
export async function openKafkaSink(settings: KafkaSettings, log: Logger): Promise<ReadableSink> {
  const sink = new KafkaSink(settings, log);
  try {
    await sink.check();
  } catch (error) {
    if (!(error instanceof SinkFault) || error.kind === 'refused') throw error;
    log.error(
      { err: error },
      'audit topic: Kafka does not answer; events are kept and nothing is published until it does',
    );
  }
  return sink;
}

/** The partition of an organization's events: Kafka's own default for keyed messages, in every client. */
export function partitionOf(organization: OrganizationRef): number {
  return partition({ topic: '', partitionMetadata, message: { key: organizationPath(organization), value: null } });
}

const partition = Partitioners.DefaultPartitioner();
// It looks at their number only.
const partitionMetadata = Array.from({ length: TOPIC_PARTITIONS }, (_, partitionId) => ({
  partitionId,
  partitionErrorCode: 0,
  leader: 0,
  replicas: [],
  isr: [],
}));

interface Lane {
  readonly client: KafkaClient;
  readonly producer: Producer;
  readonly connected: Promise<void>;
}

class KafkaSink implements ReadableSink {
  readonly name: string;
  readonly kind = 'topic';
  readonly #settings: KafkaSettings;
  readonly #log: Logger;
  readonly #lanes = new Map<number, Lane>();
  readonly #closing = new Set<Promise<void>>();
  #batchBytesMax = BATCH_BYTES_MAX;
  #topic: 'unknown' | 'fit' | 'doubtful' = 'unknown';
  #checking: Promise<void> | undefined;
  readonly #disposed = new AbortController();

  constructor(settings: KafkaSettings, log: Logger) {
    this.name = `kafka/${settings.topic}`;
    this.#settings = settings;
    this.#log = log;
  }

  get answered(): boolean {
    return this.#topic !== 'unknown';
  }

  get batchBytesMax(): number {
    return this.#batchBytesMax;
  }

  laneOf(organization: OrganizationRef): number {
    return partitionOf(organization);
  }

  async publish(lane: number, events: readonly AuditEvent[], timeoutMs: number): Promise<number> {
    const late = new AbortController();
    try {
      return await within(timeoutMs, this.#send(lane, events, timeoutMs, late.signal));
    } catch (error) {
      late.abort();
      this.#drop(lane);
      throw this.#toFault(error);
    }
  }

  async readFrom(positions: ReadonlyMap<number, number>): Promise<SinkReading> {
    await this.check();
    try {
      const ranges = await findRanges(this.#settings, positions, this.#log);
      return {
        entries: this.#whileReadable(readRanges(this.#settings, ranges, this.#log)),
        ends: new Map([...ranges].map(([partition, { end }]) => [partition, Number(end)])),
        isEmpty: [...ranges.values()].every(({ next, end }) => next >= end),
      };
    } catch (error) {
      throw this.#toFault(error, 'Kafka did not let the topic be read');
    }
  }

  async *#whileReadable<T>(entries: AsyncIterable<T>): AsyncGenerator<T> {
    try {
      yield* entries;
    } catch (error) {
      throw this.#toFault(error, 'Kafka did not let the topic be read');
    }
  }

  /** Resolves once the topic is known to be fit. Lanes that ask at the same time share one check. */
  check(): Promise<void> {
    if (this.#topic === 'fit') return Promise.resolve();
    this.#checking ??= this.#check().finally(() => {
      this.#checking = undefined;
    });
    return this.#checking;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#disposed.abort(new Error('the sink is closed'));
    for (const { client, producer } of this.#lanes.values()) this.#closing.add(client.close(producer));
    this.#lanes.clear();
    await Promise.allSettled([...this.#closing, this.#checking]);
  }

  async #check(): Promise<void> {
    // A topic that was there and is gone took events with it: that must not pass unseen.
    const create = this.#topic === 'unknown';
    const { messageBytesMax } = await ensureTopic(this.#settings, { create, signal: this.#disposed.signal }, this.#log);
    this.#batchBytesMax = Math.min(BATCH_BYTES_MAX, messageBytesMax - BATCH_OVERHEAD_BYTES);
    this.#topic = 'fit';
  }

  /** @param late nobody waits any more: what is not sent yet must not be */
  async #send(lane: number, events: readonly AuditEvent[], timeoutMs: number, late: AbortSignal): Promise<number> {
    await this.check();
    late.throwIfAborted();
    const { producer, connected } = this.#connect(lane);
    await connected;
    late.throwIfAborted();
    const { topic } = this.#settings;
    const sent = await producer.send({
      topic,
      acks: -1,
      timeout: Math.ceil(timeoutMs),
      messages: events.map((event) => ({
        key: organizationPath(event),
        value: event.cloudEvent,
        partition: lane,
        headers: { 'content-type': CONTENT_TYPE },
      })),
    });
    const answer = sent.find(({ topicName, partition }) => topicName === topic && partition === lane);
    if (answer?.errorCode !== 0 || answer.baseOffset === undefined) {
      throw new Error('Kafka acknowledged something else than what was sent');
    }
    return Number(answer.baseOffset) + events.length;
  }

  #connect(lane: number): Lane {
    let entry = this.#lanes.get(lane);
    if (!entry) {
      const client = createKafkaClient(this.#settings, this.#log);
      const producer = client.kafka.producer({
        // With it kafkajs can acknowledge messages and drop them: a lost reply takes its sequence back.
        idempotent: false,
        // Its retries would measure by the wall clock, and outlast the leadership.
        retry: { retries: 0 },
        allowAutoTopicCreation: false,
        maxInFlightRequests: 1,
        createPartitioner: Partitioners.DefaultPartitioner,
      });
      entry = { client, producer, connected: producer.connect() };
      this.#lanes.set(lane, entry);
    }
    return entry;
  }

  #drop(lane: number): void {
    const entry = this.#lanes.get(lane);
    if (!entry) return;
    this.#lanes.delete(lane);
    entry.connected.catch(() => undefined); // told to the sending that waited for it
    const closing = entry.client.drop(entry.producer).finally(() => this.#closing.delete(closing));
    this.#closing.add(closing);
  }

  #toFault(error: unknown, what = 'Kafka did not take events'): SinkFault {
    if (error instanceof SinkFault) return error;
    const cause = error instanceof KafkaJSError && error.cause instanceof Error ? error.cause : error;
    const message = cause instanceof Error ? cause.message : 'unknown error';
    if (cause instanceof KafkaJSProtocolError && isRefusal(cause)) {
      this.#topic = 'doubtful';
      return new SinkFault('refused', `Kafka turns events down (${cause.type}): ${message}`, { cause });
    }
    return new SinkFault('unavailable', `${what}: ${message}`, { cause });
  }
}

/** What waiting does not mend. kafkajs calls a missing topic retriable, because a new one is missing at first. */
function isRefusal({ type, retriable }: InstanceType<typeof KafkaJSProtocolError>): boolean {
  return !retriable || type === 'UNKNOWN_TOPIC_OR_PARTITION';
}
