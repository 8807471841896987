import { describe, expect, test } from 'vitest';

import { partitionOf } from '../../src/audit/kafka-sink.js';
import { type FoundTopic, judgeTopic } from '../../src/audit/topic.js';

const strict = { allowSingleBroker: false };
const lenient = { allowSingleBroker: true };

const fit: FoundTopic = {
  brokers: 3,
  partitions: 12,
  replication: 3,
  config: new Map([
    ['cleanup.policy', 'delete'],
    ['retention.ms', '-1'],
    ['retention.bytes', '-1'],
    ['unclean.leader.election.enable', 'false'],
    ['min.insync.replicas', '2'],
    ['max.message.bytes', '1048588'],
  ]),
};
const single: FoundTopic = { ...fit, brokers: 1, replication: 1, config: withConfig({ 'min.insync.replicas': '1' }) };

test('a topic that keeps events and their order is fit', () => {
  expect(judgeTopic(fit, strict)).toEqual([]);
  expect(judgeTopic({ ...fit, config: withConfig({ 'max.message.bytes': '65536' }) }, strict)).toEqual([]);
});

describe('what would lose events or break their order is refused, also where a single broker is allowed', () => {
  test.each<[string, Partial<FoundTopic>]>([
    ['6 partitions', { partitions: 6 }],
    ['13 partitions', { partitions: 13 }],
    ['cleanup.policy', { config: withConfig({ 'cleanup.policy': 'compact' }) }],
    ['cleanup.policy', { config: withConfig({ 'cleanup.policy': 'compact,delete' }) }],
    ['retention.ms', { config: withConfig({ 'retention.ms': '604800000' }) }],
    ['retention.bytes', { config: withConfig({ 'retention.bytes': '1073741824' }) }],
    ['unclean.leader.election.enable', { config: withConfig({ 'unclean.leader.election.enable': 'true' }) }],
    ['max.message.bytes', { config: withConfig({ 'max.message.bytes': '65535' }) }],
    ['replica', { replication: 2 }],
    ['min.insync.replicas', { config: withConfig({ 'min.insync.replicas': '1' }) }],
    ['min.insync.replicas', { config: withConfig({ 'min.insync.replicas': '4' }) }],
  ])('%s', (named, wrong) => {
    for (const setting of [strict, lenient]) {
      const problems = judgeTopic({ ...fit, ...wrong }, setting);
      expect(problems).toHaveLength(1);
      expect(problems[0]).toContain(named);
    }
  });
});

test('every problem is told at once', () => {
  const wrong = {
    ...single,
    partitions: 1,
    config: withConfig({ 'cleanup.policy': 'compact', 'retention.ms': '1000' }),
  };
  wrong.config.set('min.insync.replicas', '1');
  expect(judgeTopic(wrong, strict)).toHaveLength(5);
});

test('one broker is refused with the way out for development, and allowed where it is taken', () => {
  const problems = judgeTopic(single, strict);
  expect(problems).toHaveLength(2);
  for (const problem of problems) expect(problem).toContain('KEYREEVE_KAFKA_ALLOW_SINGLE_BROKER=true');
  expect(judgeTopic(single, lenient)).toEqual([]);
});

test('the exception for one broker holds for no cluster that could carry three replicas', () => {
  const problems = judgeTopic({ ...single, brokers: 3 }, lenient);
  expect(problems).toHaveLength(2);
  expect(problems.join()).not.toContain('KEYREEVE_KAFKA_ALLOW_SINGLE_BROKER');
});

test('a setting that the brokers do not tell counts as wrong', () => {
  expect(judgeTopic({ ...fit, config: new Map() }, strict)).toHaveLength(6);
});

// Where Kafka's own producer (Java, kafka-clients 3.9.1, default partitioner, 12 partitions) put messages of these keys.
test.each([
  ['metlo/acme', 9],
  ['shop/a', 5],
  ['shop/ab', 9],
  ['shop/abc', 5],
  ['shop/abcd', 10],
  ['hotmetal/org_1', 7],
  ['hygiara/x.y:z-1', 2],
  ['metal/7', 4],
  ['hookdeploy/0190f5e2-7b1c-7c3e-9d55-2f1f6a3f0b11', 4],
  [`s/${'o'.repeat(128)}`, 6],
])('the events of %s go to the partition that any other producer would choose', (key, partition) => {
  const [keyspace = '', organizationId = ''] = key.split('/');
  expect(partitionOf({ keyspace, organizationId })).toBe(partition);
});

function withConfig(entries: Record<string, string>): Map<string, string> {
  return new Map([...fit.config, ...Object.entries(entries)]);
}
