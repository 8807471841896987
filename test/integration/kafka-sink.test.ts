import { once } from 'node:events';
import { createServer, type Server, type Socket } from 'node:net';
import { randomUUID } from 'node:crypto';
import kafkajs, { type Admin, Kafka, logLevel } from 'kafkajs';
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest';

import type { KafkaSettings } from '../../src/audit/kafka-client.js';
import { openKafkaSink, partitionOf } from '../../src/audit/kafka-sink.js';
import { readTopic } from '../../src/audit/read-topic.js';
import type { SinkFault } from '../../src/audit/sink.js';
import { type Entry, verifyChain } from '../../src/audit/verify-chain.js';
import type { AuditEvent } from '../../src/keys/event.js';
import { organizationPath } from '../../src/keys/organization.js';
import { captureLog, makeChain, silentLog } from '../support/audit.js';
import { acme } from '../support/domain.js';
import { freePort } from '../support/free-port.js';
import { consumeWithConsole, createTopic, startKafka } from '../support/kafka.js';
import { startProxy } from '../support/tcp-proxy.js';
import { pause, resume } from '../support/pause.js';

const brokers = inject('kafkaBrokers');
const kafka = new Kafka({ brokers, logLevel: logLevel.NOTHING });
let admin: Admin;
beforeAll(async () => {
  admin = kafka.admin();
  await admin.connect();
});
afterAll(() => admin.disconnect());

describe('events', () => {
  test('come out of the topic as they went in: by key and partition, canonical, in order', async () => {
    const settings = newTopic();
    await using sink = await openKafkaSink(settings, silentLog);
    const chains = ['a', 'b', 'c', 'd'].map((organizationId) => makeChain(5, { ...acme, organizationId }));
    await Promise.all(chains.map((chain) => publish(sink, chain)));

    const messages = await consumeWithConsole(brokers, settings.topic, { count: 20 });
    for (const chain of chains) {
      const key = organizationPath(chain[0] ?? acme);
      const values = messages.filter((message) => message.key === key).map(({ value }) => value);
      expect(values).toEqual(chain.map(({ cloudEvent }) => cloudEvent));
    }
    const entries = await entriesOf(settings);
    for (const { claims } of entries) {
      const [keyspace = '', organizationId = ''] = claims?.organization?.split('/') ?? [];
      expect(claims?.partition).toBe(partitionOf({ keyspace, organizationId }));
    }
    expect(await verifyChain(readTopic(settings, silentLog), { repeats: 'counted' })).toMatchObject({
      organizations: 4,
      events: 20,
      faultCount: 0,
    });
  });

  test('carry the content type of a CloudEvent', async () => {
    const settings = newTopic();
    await using sink = await openKafkaSink(settings, silentLog);
    await publish(sink, makeChain(1));
    const header = await firstHeader(settings.topic, 'content-type');
    expect(header).toBe('application/cloudevents+json; charset=UTF-8');
  });

  test('leave a position behind them, from which on the topic is read again', async () => {
    const settings = newTopic();
    await using sink = await openKafkaSink(settings, silentLog);
    const chain = makeChain(5);
    const other = makeChain(3, { ...acme, organizationId: 'b' });
    const [lane, otherLane] = [partitionOf(acme), partitionOf({ ...acme, organizationId: 'b' })];
    expect(otherLane).not.toBe(lane);
    const position = await sink.publish(lane, chain.slice(0, 2), 30_000);
    expect(position).toBe(2);
    expect(await sink.publish(lane, chain.slice(2), 30_000)).toBe(5);
    expect(await sink.publish(otherLane, other, 30_000)).toBe(3);

    const { entries, ends, isEmpty } = await sink.readFrom(
      new Map([
        [lane, position],
        [otherLane, 3],
      ]),
    );
    expect(isEmpty).toBe(false);
    expect(await textsOf(entries)).toEqual(chain.slice(2).map(({ cloudEvent }) => cloudEvent));
    expect(ends.size).toBe(12);
    expect([ends.get(lane), ends.get(otherLane)]).toEqual([5, 3]);

    expect(await sink.readFrom(ends)).toMatchObject({ ends, isEmpty: true });
    const fromBefore = await sink.readFrom(new Map([...ends, [lane, 6]]));
    expect(await textsOf(fromBefore.entries)).toHaveLength(5);
  });

  test('go through in a batch as large as the topic allows', async () => {
    const settings = newTopic();
    await makeTopic(settings.topic, { 'max.message.bytes': '65536' });
    await using sink = await openKafkaSink(settings, silentLog);
    expect(sink.batchBytesMax).toBeLessThan(65536);
    const [event] = makeChain(1);
    const large = { ...acme, ...event, cloudEvent: 'x'.repeat(sink.batchBytesMax - 512) } as AuditEvent;
    await sink.publish(partitionOf(acme), [large], 30_000);
    expect(await entriesOf(settings)).toHaveLength(1);
  });
});

describe('the topic', () => {
  test('is made, where it is missing, so that it keeps events for ever', async () => {
    const settings = newTopic();
    await (await openKafkaSink(settings, silentLog))[Symbol.asyncDispose]();
    const { topics } = await admin.fetchTopicMetadata({ topics: [settings.topic] });
    expect(topics[0]?.partitions).toHaveLength(12);
    const { resources } = await admin.describeConfigs({
      resources: [{ type: kafkajs.ConfigResourceTypes.TOPIC, name: settings.topic }],
      includeSynonyms: false,
    });
    const config = Object.fromEntries(
      resources[0]?.configEntries.map((entry) => [entry.configName, entry.configValue]) ?? [],
    );
    expect(config).toMatchObject({
      'cleanup.policy': 'delete',
      'retention.ms': '-1',
      'retention.bytes': '-1',
      'unclean.leader.election.enable': 'false',
    });
  });

  test('made by two replicas at once is made once, and both go on', async () => {
    const settings = newTopic();
    const sinks = await Promise.all([1, 2, 3].map(() => openKafkaSink(settings, silentLog)));
    await Promise.all(sinks.map((sink) => publish(sink, makeChain(1))));
    await Promise.all(sinks.map((sink) => sink[Symbol.asyncDispose]()));
    expect(await entriesOf(settings)).toHaveLength(3);
  });

  test('that would lose events or break their order is refused at the start, with every problem', async () => {
    const settings = newTopic();
    await makeTopic(settings.topic, { 'cleanup.policy': 'compact', 'retention.ms': '86400000' }, 3);
    const opening = openKafkaSink(settings, silentLog);
    await expect(opening).rejects.toMatchObject({ name: 'SinkFault', kind: 'refused' });
    const message = await opening.catch((error: unknown) => (error as Error).message);
    for (const problem of ['3 partitions', 'cleanup.policy', 'retention.ms']) expect(message).toContain(problem);
  });

  test('with a name that Kafka does not take is refused at the start', async () => {
    const opening = openKafkaSink({ ...newTopic(), topic: 'audit events' }, silentLog);
    await expect(opening).rejects.toMatchObject({ kind: 'refused' });
  });

  test('that is removed while events are published is refused, and not made again in silence', async () => {
    const settings = newTopic();
    await using sink = await openKafkaSink(settings, silentLog);
    await publish(sink, makeChain(1));
    await removeTopic(settings.topic, sink);
    await expect(publish(sink, makeChain(1))).rejects.toThrow('it is gone');
    expect(await admin.listTopics()).not.toContain(settings.topic);
  });
});

describe('Kafka away', () => {
  // A broker is started twice.
  test(
    'the sink opens, says so loudly, and publishes nothing until the topic is checked',
    { timeout: 240_000 },
    async () => {
      await using own = await startKafka();
      await own.stop();
      const settings = { brokers: own.brokers, topic: 'audit', allowSingleBroker: true };
      const { log, lines } = captureLog();
      await using sink = await openKafkaSink(settings, log);
      expect(lines.filter(({ level }) => level === 50).map(({ msg }) => msg)).toEqual([
        'audit topic: Kafka does not answer; events are kept and nothing is published until it does',
      ]);
      await expect(publish(sink, makeChain(1))).rejects.toMatchObject({ kind: 'unavailable' });

      // It comes back with a topic that somebody made otherwise: reachable, and still nothing may be published.
      await own.restart();
      const ownAdmin = new Kafka({ brokers: own.brokers, logLevel: logLevel.NOTHING }).admin();
      await ownAdmin.connect();
      await createTopic(ownAdmin, { topic: 'audit', numPartitions: 1 });
      await expect(publish(sink, makeChain(1))).rejects.toMatchObject({ kind: 'refused' });
      expect(await entriesOf(settings)).toEqual([]);

      await ownAdmin.deleteTopics({ topics: ['audit'] });
      await expect.poll(() => ownAdmin.listTopics()).not.toContain('audit');
      await ownAdmin.disconnect();
      await expect.poll(() => publish(sink, makeChain(1)).then(() => 'published')).toBe('published');
      expect(await entriesOf(settings)).toHaveLength(1);
    },
  );

  test.each([
    ['answers nothing', (socket: Socket) => void socket.resume()],
    ['hangs up', (socket: Socket) => void socket.destroy()],
  ])('a broker that takes connections and %s ends in a fault in time, and closing does not hang', async (_, treat) => {
    await using broker = await startFakeBroker(treat);
    const opening = openKafkaSink({ brokers: [broker.address], topic: 'audit', allowSingleBroker: true }, silentLog);
    const sink = await opening;
    await expect(sink.publish(0, makeChain(1), 1000)).rejects.toMatchObject({ kind: 'unavailable' });
    await sink[Symbol.asyncDispose]();
    await expect.poll(() => broker.connections()).toBe(0);
  });

  test('a broker that stops answering is left in time, and what was given up is not sent later', async () => {
    await using own = await startKafka();
    const settings = { brokers: own.brokers, topic: 'audit', allowSingleBroker: true };
    await using sink = await openKafkaSink(settings, silentLog);
    const chain = makeChain(4);
    await publish(sink, chain.slice(0, 1));
    await pause(own.pid);
    for (let tries = 0; tries < 6; tries += 1) {
      await expect(publish(sink, chain.slice(1, 2), 500)).rejects.toMatchObject({ kind: 'unavailable' });
    }
    resume(own.pid);
    await expect.poll(() => publish(sink, chain.slice(1)).then(() => 'published')).toBe('published');
    const verdict = await verifyChain(readTopic(settings, silentLog), { repeats: 'counted' });
    expect(verdict).toMatchObject({ organizations: 1, faultCount: 0 });
    expect(verdict.events - verdict.repeats).toBe(4);
    // What had reached the broker's machine, and at worst one more try of all three; not each try that was given up.
    expect(verdict.repeats).toBeLessThanOrEqual(4);
  });
});

describe('reading the topic', () => {
  test('an empty topic has nothing, and a missing one is told of', async () => {
    const settings = newTopic();
    await (await openKafkaSink(settings, silentLog))[Symbol.asyncDispose]();
    expect(await entriesOf(settings)).toEqual([]);
    await expect(entriesOf(newTopic())).rejects.toThrow('there is no topic');
  });

  test('ends where the topic ended when it began, and leaves no group behind', async () => {
    const settings = newTopic();
    await using sink = await openKafkaSink(settings, silentLog);
    const chain = makeChain(600);
    await publish(sink, chain.slice(0, 300));
    const texts: string[] = [];
    let group: string | undefined;
    for await (const { text } of readTopic(settings, silentLog)) {
      if (texts.length === 0) {
        await publish(sink, chain.slice(300));
        group = await groupOf(settings);
      }
      texts.push(text);
    }
    expect(texts).toEqual(chain.slice(0, 300).map(({ cloudEvent }) => cloudEvent));
    expect(await groups()).not.toContain(group);
  });

  test('goes on where a broker hangs up, whatever it was asked', async () => {
    await using proxy = await startProxy(0);
    await using own = await startKafka({
      advertise: (port) => {
        proxy.target = port;
        return Promise.resolve(proxy.port);
      },
    });
    const settings = { brokers: own.brokers, topic: 'audit', allowSingleBroker: true };
    await using sink = await openKafkaSink(settings, silentLog);
    const chain = makeChain(5);
    await publish(sink, chain);
    const texts = chain.map(({ cloudEvent }) => cloudEvent);
    for (const [name, apiKey, times] of requestsOfReading) {
      for (let nth = 1; nth <= times; nth += 1) {
        let seen = 0;
        const hungUp = proxy
          .nextAnswer((bytes) => bytes.readInt16BE(API_KEY_OFFSET) === apiKey && (seen += 1) === nth)
          .then(() => proxy.halfClose('down'));
        expect(await textsOf(readTopic(settings, silentLog)), `${name} ${nth}`).toEqual(texts);
        await hungUp;
      }
    }
  });

  test('a reader that stops early leaves nothing running', async () => {
    const settings = newTopic();
    await using sink = await openKafkaSink(settings, silentLog);
    await publish(sink, makeChain(50));
    let group: string | undefined;
    for await (const { share } of readTopic(settings, silentLog)) {
      expect(share).toBeCloseTo(1 / 50);
      group = await groupOf(settings);
      break;
    }
    expect(await groups()).not.toContain(group);
  });

  test('what a transaction leaves in the topic does not keep it from ending', async () => {
    const settings = newTopic();
    await using sink = await openKafkaSink(settings, silentLog);
    const chain = makeChain(2);
    await publish(sink, chain);
    const producer = kafka.producer({ transactionalId: randomUUID(), idempotent: true, maxInFlightRequests: 1 });
    await producer.connect();
    const transaction = await producer.transaction();
    await transaction.send({ topic: settings.topic, messages: [{ key: 'x', value: 'no event', partition: 0 }] });
    await transaction.commit();
    await producer.disconnect();
    // A commit is answered before its marker is in the topic, and what it covers counts from then on.
    const read = () => verifyChain(readTopic(settings, silentLog), { repeats: 'counted' });
    await expect.poll(async () => (await read()).events).toBe(3);
    expect((await read()).faults).toMatchObject([{ kind: 'unreadable', position: 'partition 0 offset 0' }]);
  });
});

test('what kafkajs logs holds no event', async () => {
  const settings = newTopic();
  const { log, lines } = captureLog();
  {
    await using sink = await openKafkaSink(settings, log);
    await publish(sink, makeChain(3));
    await removeTopic(settings.topic, sink);
  }
  expect(lines.filter(({ msg }) => msg.startsWith('kafkajs: ')).length).toBeGreaterThan(0);
  expect(JSON.stringify(lines)).not.toContain('specversion');
});

function newTopic(): KafkaSettings {
  return { brokers, topic: `audit-${randomUUID()}`, allowSingleBroker: true };
}

async function makeTopic(topic: string, changed: Record<string, string>, numPartitions = 12): Promise<void> {
  const config = { 'retention.ms': '-1', 'retention.bytes': '-1', 'min.insync.replicas': '1', ...changed };
  const configEntries = Object.entries(config).map(([name, value]) => ({ name, value }));
  await createTopic(admin, { topic, numPartitions, replicationFactor: 1, configEntries });
}

async function groups(): Promise<string[]> {
  return (await admin.listGroups()).groups.map(({ groupId }) => groupId);
}

/** Of who reads the topic just now: others read other topics of the broker meanwhile. */
async function groupOf({ topic }: KafkaSettings): Promise<string> {
  const described = await admin.describeGroups(await groups());
  const found = described.groups.find(({ members }) =>
    members.some(({ memberMetadata }) => memberMetadata.includes(topic)),
  );
  if (!found) throw new Error('nobody reads the topic');
  return found.groupId;
}

/** Resolves once the sink is refused: a broker takes events for a while after the removal was answered. */
async function removeTopic(topic: string, sink: Sink): Promise<void> {
  await admin.deleteTopics({ topics: [topic] });
  const kindOfFault = () => publish(sink, makeChain(1)).catch((error: unknown) => (error as SinkFault).kind);
  await expect.poll(kindOfFault).toBe('refused');
}

type Sink = Awaited<ReturnType<typeof openKafkaSink>>;

async function textsOf(entries: AsyncIterable<Entry>): Promise<string[]> {
  const texts = [];
  for await (const { text } of entries) texts.push(text);
  return texts;
}

async function publish(sink: Sink, chain: readonly AuditEvent[], timeoutMs = 30_000): Promise<void> {
  const [first] = chain;
  if (first) await sink.publish(sink.laneOf(first), chain, timeoutMs);
}

async function entriesOf(settings: KafkaSettings): Promise<Entry[]> {
  const entries = [];
  for await (const entry of readTopic(settings, silentLog)) entries.push(entry);
  return entries;
}

async function firstHeader(topic: string, name: string): Promise<string | undefined> {
  const consumer = kafka.consumer({ groupId: randomUUID() });
  await consumer.connect();
  await consumer.subscribe({ topic, fromBeginning: true });
  const header = await new Promise<string | undefined>((resolve, reject) => {
    consumer
      .run({
        eachMessage: ({ message }) => {
          resolve(message.headers?.[name]?.toString());
          return Promise.resolve();
        },
      })
      .catch(reject);
  });
  await consumer.disconnect();
  return header;
}

/** Behind the request's size: https://kafka.apache.org/protocol#protocol_messages */
const API_KEY_OFFSET = 4;
/** What a reading asks, its https://kafka.apache.org/protocol#protocol_api_keys, and how often at least. */
const requestsOfReading = [
  ['Metadata', 3, 5],
  ['ListOffsets', 2, 4],
  ['OffsetFetch', 9, 1],
  ['ApiVersions', 18, 2],
  ['FindCoordinator', 10, 1],
  ['JoinGroup', 11, 2],
  ['SyncGroup', 14, 1],
  ['Fetch', 1, 2],
] as const;

interface FakeBroker extends AsyncDisposable {
  readonly address: string;
  connections(): number;
}

/** Something that listens as a broker does and is none. */
async function startFakeBroker(treat: (socket: Socket) => void): Promise<FakeBroker> {
  const sockets = new Set<Socket>();
  const port = await freePort();
  const server: Server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => undefined).once('close', () => sockets.delete(socket));
    treat(socket);
  }).listen(port, '127.0.0.1');
  await once(server, 'listening');
  return {
    address: `127.0.0.1:${port}`,
    connections: () => sockets.size,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, 'close');
    },
  };
}
