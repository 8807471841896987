/** docker-compose.yml against the settings that the tests' own servers run with, and the service in it and beside it. */
import { readFileSync } from 'node:fs';
import { parseEnv } from 'node:util';
import { expect, test } from 'vitest';
import { parse } from 'yaml';

import { type Environment, parseSettings, type Settings } from '../../src/config/settings.js';
import { brokerSettings } from '../support/kafka.js';
import { replicaSetName, replicaSetSettings } from '../support/mongod.js';
import { memberArguments } from '../support/three-members.js';

interface Service {
  image?: string;
  build?: string;
  network_mode?: string;
  command?: string[];
  ports?: string[];
  environment?: Record<string, string>;
  env_file?: string;
  volumes?: string[];
  read_only?: boolean;
  cap_drop?: string[];
  depends_on?: Record<string, { condition: string }>;
  healthcheck?: { test?: string[] };
}

const MEMBERS = ['mongodb-1', 'mongodb-2', 'mongodb-3'];
const { services, volumes } = parse(readFileSync('docker-compose.yml', 'utf8'), { merge: true }) as {
  services: Record<string, Service>;
  volumes: Record<string, null>;
};
const composeEnv = parseEnv(readFileSync('config/compose.env', 'utf8'));
const opened = services.loopback?.ports ?? [];
// What has the tests' broker back sooner after a kill; a broker that runs on has no use for it.
const FOR_KILLS_ALONE = ['broker.session.timeout.ms', 'broker.heartbeat.interval.ms'];

function settingsOf(env: Environment): Settings {
  const settings = parseSettings(env);
  if (Array.isArray(settings)) throw new Error(JSON.stringify(settings));
  return settings;
}

test('the broker of docker-compose.yml has the settings that the tests’ own has', () => {
  const wanted = Object.entries(brokerSettings).filter(([name]) => !FOR_KILLS_ALONE.includes(name));
  expect(services.kafka?.environment).toMatchObject(
    Object.fromEntries(wanted.map(([name, value]) => [`KAFKA_${name.replaceAll('.', '_').toUpperCase()}`, value])),
  );
});

test('the replica set of docker-compose.yml has three members, and the name and settings that the tests’ own has', () => {
  const ports = MEMBERS.map((name) => {
    const { command = [] } = services[name] ?? {};
    const [port = ''] = command.slice(command.indexOf('--port') + 1);
    const settings = ['--replSet', replicaSetName, '--bind_ip_all', '--port', port, ...memberArguments];
    expect(command).toEqual(['mongod', ...settings]);
    return port;
  });
  expect(new Set(ports).size).toBe(3);

  const [initiate = ''] = services[MEMBERS[0] ?? '']?.healthcheck?.test?.slice(-1) ?? [];
  expect(initiate).toContain(`_id: '${replicaSetName}'`);
  expect(initiate).toContain(`[${ports.join(', ')}].map((port, _id) => ({ _id, host: '127.0.0.1:' + port }))`);
  for (const [name, value] of Object.entries(replicaSetSettings)) expect(initiate).toContain(`${name}: ${value}`);
});

test('whatever docker-compose.yml opens is on loopback, and means the same inside and outside of the containers', () => {
  const elsewhere = Object.entries(services).filter(([name]) => name !== 'loopback');
  for (const [name, { network_mode: network, ports }] of elsewhere) {
    expect({ name, network, ports }).toEqual({ name, network: 'service:loopback', ports: undefined });
  }
  for (const port of opened) expect(port).toMatch(/^127\.0\.0\.1:(\d+):\1$/);
});

test('config/compose.env names the servers of docker-compose.yml, for the service in it and for one beside it', () => {
  const { store, auditSink, listen } = settingsOf(composeEnv);
  const members = MEMBERS.map((name) => services[name]?.command ?? []).map(
    (command) => `127.0.0.1:${String(command[command.indexOf('--port') + 1])}`,
  );
  const uri = store.kind === 'mongodb' ? store.uri.reveal() : '';
  expect(uri).toBe(`mongodb://${members.join()}/keyreeve?replicaSet=${replicaSetName}`);
  const broker = '127.0.0.1:9092';
  expect(auditSink).toMatchObject({ kind: 'kafka', brokers: [broker], allowSingleBroker: true });
  expect(services.kafka?.environment?.KAFKA_ADVERTISED_LISTENERS).toBe(`PLAINTEXT://${broker}`);
  expect(opened.map((port) => port.replace(/:\d+$/, ''))).toEqual([...members, broker, '127.0.0.1:50051']);
  // Both may run at once.
  expect(listen).toEqual({ host: '127.0.0.1', port: 50_052 });
});

test('the service of docker-compose.yml starts with its settings, with no right that it does not need', () => {
  const { keyreeve } = services;
  expect(keyreeve).toMatchObject({ build: '.', env_file: 'config/compose.env', read_only: true, cap_drop: ['ALL'] });
  expect(settingsOf({ ...composeEnv, ...keyreeve?.environment }).listen).toEqual({ host: '0.0.0.0', port: 50_051 });
  expect(keyreeve?.depends_on).toEqual({
    'mongodb-1': { condition: 'service_healthy' },
    kafka: { condition: 'service_healthy' },
  });
});

test('every volume of docker-compose.yml is declared, and each server has one of its own', () => {
  const named = Object.values(services).flatMap(({ volumes: used = [] }) =>
    used.filter((volume) => !volume.startsWith('./')).map((volume) => volume.split(':')[0]),
  );
  expect(named.sort()).toEqual(Object.keys(volumes).sort());
});
