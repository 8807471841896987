/** docker-compose.yml against the settings that the tests' own servers run with, and the service that is pointed at it. */
import { readFileSync } from 'node:fs';
import { parseEnv } from 'node:util';
import { expect, test } from 'vitest';
import { parse } from 'yaml';

import { parseSettings } from '../../src/config/settings.js';
import { brokerSettings } from '../support/kafka.js';
import { mongodArguments, replicaSetName, replicaSetSettings } from '../support/mongod.js';

interface Compose {
  services: Record<
    'mongodb' | 'kafka',
    { command?: string[]; ports: string[]; environment?: Record<string, string>; healthcheck: { test: string[] } }
  >;
}

const { services } = parse(readFileSync('docker-compose.yml', 'utf8')) as Compose;
// What has the tests' broker back sooner after a kill; a broker that runs on has no use for it.
const FOR_KILLS_ALONE = ['broker.session.timeout.ms', 'broker.heartbeat.interval.ms'];

test('the broker of docker-compose.yml has the settings that the tests’ own has', () => {
  const wanted = Object.entries(brokerSettings).filter(([name]) => !FOR_KILLS_ALONE.includes(name));
  expect(services.kafka.environment).toMatchObject(
    Object.fromEntries(wanted.map(([name, value]) => [`KAFKA_${name.replaceAll('.', '_').toUpperCase()}`, value])),
  );
});

test('the replica set of docker-compose.yml has the name and the election settings that the tests’ own has', () => {
  expect(services.mongodb.command).toEqual([
    'mongod',
    '--replSet',
    replicaSetName,
    '--bind_ip_all',
    ...mongodArguments,
  ]);
  const initiate = services.mongodb.healthcheck.test.join(' ');
  expect(initiate).toContain(`_id: '${replicaSetName}'`);
  for (const [name, value] of Object.entries(replicaSetSettings)) expect(initiate).toContain(`${name}: ${value}`);
});

test('npm run start:compose points the service at the addresses that docker-compose.yml opens, on loopback', () => {
  const settings = parseSettings(parseEnv(readFileSync('config/compose.env', 'utf8')));
  if (Array.isArray(settings)) throw new Error('config/compose.env is not valid');
  const [mongodb, kafka] = [services.mongodb, services.kafka].map(({ ports }) => ports[0]?.replace(/:\d+$/, ''));
  const uri = settings.store.kind === 'mongodb' ? settings.store.uri.reveal() : '';
  expect(uri).toBe(`mongodb://${String(mongodb)}/keyreeve?replicaSet=${replicaSetName}`);
  expect(settings.auditSink).toMatchObject({ kind: 'kafka', brokers: [kafka], allowSingleBroker: true });
  expect(services.kafka.environment?.KAFKA_ADVERTISED_LISTENERS).toBe(`PLAINTEXT://${String(kafka)}`);
});
