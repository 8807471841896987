/** What kafkajs does in the middle of a broker's fault, which no broker does when it is told to. */
import kafkajs, { type Admin, type Consumer, type ConsumerRunConfig } from 'kafkajs';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';

import { findRanges, readRanges } from '../../src/audit/read-topic.js';
import { silentLog } from '../support/audit.js';

const noError = (): Error | undefined => undefined;
const kafka = { consumers: 0, closed: 0, failures: 0, questions: 0, onQuestion: noError, onConnect: noError };

vi.mock('../../src/audit/kafka-client.js', () => ({
  createKafkaClient: () => ({
    kafka: { consumer: () => aConsumer(), admin: () => anAdmin() },
    close: () => {
      kafka.closed += 1;
      return Promise.resolve();
    },
    drop: settled,
  }),
}));

beforeEach(() => {
  Object.assign(kafka, { consumers: 0, closed: 0, failures: 0, questions: 0, onQuestion: noError, onConnect: noError });
});
afterEach(() => vi.useRealTimers());

const settings = { brokers: ['127.0.0.1:1'], topic: 'events' };
const ranges = new Map([[0, { next: 0n, end: 2n }]]);

test('a reading whose consumer loses its group as it begins is begun anew, and reads everything once', async () => {
  kafka.failures = 2;
  expect(await textsOf()).toEqual(['message 0', 'message 1']);
  expect(kafka.consumers).toBe(3);
  // Each with the group that it leaves behind.
  expect(kafka.closed).toBe(6);
});

test('a reading that never begins ends with the reason', async () => {
  kafka.failures = Infinity;
  await expect(textsOf()).rejects.toThrow("cannot be read: the consumer's group fell apart");
  expect(kafka.consumers).toBe(5);
});

test('a topic whose leaders are being elected is asked for again, however kafkajs words it', async () => {
  kafka.failures = 2;
  const found = await findRanges(settings, new Map(), silentLog);
  expect(found).toEqual(new Map([[0, { next: 0n, end: 2n }]]));
  expect(kafka.questions).toBe(3);
});

test.each([
  ['hangs up each time', new kafkajs.KafkaJSConnectionError('Closed connection'), 'Closed connection'],
  [
    'gives no answer',
    new TypeError("Cannot destructure property 'x' of null"),
    'no broker answered which topics there',
  ],
])('a broker that %s is asked again for seconds, and then named as the reason', async (_, error, message) => {
  vi.useFakeTimers();
  kafka.onQuestion = () => error;
  const found = expect(findRanges(settings, new Map(), silentLog)).rejects.toThrow(message);
  await vi.advanceTimersByTimeAsync(9000);
  await found;
  expect(kafka.questions).toBeGreaterThan(10);
});

test('a reading whose broker hangs up as it begins is begun anew, so often and with that reason', async () => {
  kafka.onConnect = () => new kafkajs.KafkaJSConnectionError('Closed connection');
  await expect(textsOf()).rejects.toThrow('cannot be read: Closed connection');
  expect(kafka.consumers).toBe(5);
});

test('a reading that kafkajs has given up is not begun anew', async () => {
  const refused = new kafkajs.KafkaJSConnectionError('connect ECONNREFUSED');
  const error = new kafkajs.KafkaJSNumberOfRetriesExceeded(refused, { retryCount: 31, retryTime: 1000 });
  kafka.onConnect = () => error;
  await expect(textsOf()).rejects.toBe(error);
  expect(kafka.consumers).toBe(1);
});

async function textsOf(): Promise<string[]> {
  const texts = [];
  for await (const { text } of readRanges(settings, ranges, silentLog)) texts.push(text);
  return texts;
}

function settled(): Promise<void> {
  return Promise.resolve();
}

function anAdmin(): Pick<Admin, 'connect' | 'deleteGroups' | 'listTopics' | 'fetchTopicOffsets'> {
  return {
    connect: settled,
    deleteGroups: () => Promise.resolve([]),
    listTopics() {
      kafka.questions += 1;
      const failure = kafka.onQuestion();
      if (failure) return Promise.reject(failure);
      if (kafka.questions > kafka.failures) return Promise.resolve([settings.topic]);
      const error = new kafkajs.KafkaJSProtocolError(Object.assign(new Error('no leader'), NO_LEADER));
      const wrapped = new kafkajs.KafkaJSNumberOfRetriesExceeded(error, { retryCount: 1, retryTime: 1 });
      return Promise.reject(kafka.questions === 1 ? error : wrapped);
    },
    fetchTopicOffsets: () => Promise.resolve([{ partition: 0, offset: '2', low: '0', high: '2' }]),
  };
}

const NO_LEADER = { retriable: true, type: 'LEADER_NOT_AVAILABLE', code: 5 };

/** Gives the topic's two messages, unless it has lost its group. */
function aConsumer(): Pick<Consumer, 'connect' | 'subscribe' | 'run' | 'seek' | 'disconnect'> & {
  on(): void;
  events: object;
} {
  kafka.consumers += 1;
  const isBroken = kafka.consumers <= kafka.failures;
  return {
    on: () => undefined,
    events: {},
    connect: () => {
      const failure = kafka.onConnect();
      return failure ? Promise.reject(failure) : settled();
    },
    subscribe: settled,
    disconnect: settled,
    run: ({ eachBatch } = {}) => {
      if (!isBroken) void eachBatch?.({ batch } as Parameters<NonNullable<ConsumerRunConfig['eachBatch']>>[0]);
      return Promise.resolve();
    },
    seek: () => {
      if (isBroken) throw new Error('Consumer group was not initialized, consumer#run must be called first');
    },
  };
}

const batch = {
  partition: 0,
  messages: [0, 1].map((at) => ({ offset: String(at), key: null, value: Buffer.from(`message ${at}`) })),
  lastOffset: () => '1',
};
