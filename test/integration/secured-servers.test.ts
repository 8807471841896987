/** MongoDB and Kafka as they are run elsewhere than here: with TLS, client certificates and logins. */
import { writeFile } from 'node:fs/promises';
import { readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { MongoClient } from 'mongodb';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';

import { openKafkaSink } from '../../src/audit/kafka-sink.js';
import type { KafkaSettings } from '../../src/audit/kafka-client.js';
import { readTopic } from '../../src/audit/read-topic.js';
import { Secret } from '../../src/keys/secret.js';
import { makeChain, silentLog } from '../support/audit.js';
import { call } from '../support/call.js';
import { makeGuardedFolder } from '../support/guard.js';
import { toCreate } from '../support/grpc-server.js';
import { type OwnKafka, startKafka } from '../support/kafka.js';
import { type MongodProcess, startMongodProcess } from '../support/mongod-process.js';
import { startService } from '../support/service.js';

const CERTIFICATES = fileURLToPath(new URL('../support/certificates/', import.meta.url));
const pem = (name: string) => join(CERTIFICATES, name);
const USERNAME = 'keyreeve';
const PASSWORD = 'right-horse';

let folder: Awaited<ReturnType<typeof makeGuardedFolder>>;
beforeAll(async () => {
  folder = await makeGuardedFolder(join(tmpdir(), 'keyreeve-secured-'));
});
afterAll(() => folder[Symbol.asyncDispose]());

/** A certificate and its key in one file, as MongoDB and its driver want them. */
async function both(name: string): Promise<string> {
  const path = join(folder.path, `${name}-both.pem`);
  await writeFile(path, readFileSync(pem(`${name}.pem`), 'utf8') + readFileSync(pem(`${name}.key`), 'utf8'));
  return path;
}

describe('Kafka', () => {
  let kafka: OwnKafka;
  beforeAll(async () => {
    const certFile = pem('server.pem');
    const listener = { certFile, keyFile: pem('server.key'), clientCaFile: pem('ca.pem') };
    kafka = await startKafka({ secure: { ...listener, username: USERNAME, password: PASSWORD } });
  });
  afterAll(() => kafka[Symbol.asyncDispose]());

  const gateway = { certFile: pem('gateway.pem'), keyFile: pem('gateway.key') };
  const secured = (changed: Partial<KafkaSettings> = {}): KafkaSettings => ({
    brokers: kafka.secureBrokers,
    topic: 'secured',
    allowSingleBroker: true,
    tls: { caFile: pem('ca.pem'), client: gateway },
    sasl: { mechanism: 'scram-sha-512', username: USERNAME, password: new Secret(PASSWORD) },
    ...changed,
  });
  async function publish(settings: KafkaSettings): Promise<void> {
    const chain = makeChain(1);
    const [first] = chain;
    await using sink = await openKafkaSink(settings, silentLog);
    if (first) await sink.publish(sink.laneOf(first), chain, 10_000);
  }

  test.each(['plain', 'scram-sha-512'] as const)(
    'events go over TLS, with a certificate and the login %s',
    async (mechanism) => {
      const sasl = { mechanism, username: USERNAME, password: new Secret(PASSWORD) };
      const settings = secured({ sasl, topic: `secured-${mechanism}` });
      await publish(settings);
      const texts: string[] = [];
      for await (const { text } of readTopic(settings, silentLog)) texts.push(text);
      expect(texts).toHaveLength(1);
    },
  );

  test.each<[string, () => Partial<KafkaSettings>]>([
    ['another password', () => ({ sasl: { mechanism: 'plain', username: USERNAME, password: new Secret('wrong') } })],
    ['another login', () => ({ sasl: { mechanism: 'scram-sha-512', username: 'x', password: new Secret(PASSWORD) } })],
    ['no certificate', () => ({ tls: { caFile: pem('ca.pem') } })],
    [
      "another CA's certificate",
      () => ({
        tls: { caFile: pem('ca.pem'), client: { certFile: pem('stranger.pem'), keyFile: pem('stranger.key') } },
      }),
    ],
    ['a broker that the CA does not vouch for', () => ({ tls: { caFile: pem('other-ca.pem'), client: gateway } })],
  ])('with %s nothing is published', async (_, changed) => {
    await expect(publish(secured(changed()))).rejects.toMatchObject({ kind: 'unavailable' });
  });

  test('the service as built publishes there', async () => {
    await using service = await startService({
      KEYREEVE_KAFKA_BROKERS: kafka.secureBrokers.join(),
      KEYREEVE_KAFKA_ALLOW_SINGLE_BROKER: 'true',
      KEYREEVE_KAFKA_TLS: 'true',
      KEYREEVE_KAFKA_CA: pem('ca.pem'),
      KEYREEVE_KAFKA_CERT: gateway.certFile,
      KEYREEVE_KAFKA_KEY: gateway.keyFile,
      KEYREEVE_KAFKA_SASL: 'scram-sha-512',
      KEYREEVE_KAFKA_USERNAME: USERNAME,
      KEYREEVE_KAFKA_PASSWORD: PASSWORD,
    });
    await call((done) => service.keys.createKey(toCreate({ keyspace: 'hygiara' }), done));
    const published = async () => {
      const settings = secured({ topic: 'keyreeve.audit.v1' });
      const texts: string[] = [];
      for await (const { text } of readTopic(settings, silentLog)) texts.push(text);
      return texts.length;
    };
    await expect.poll(published).toBe(1);
    expect(service.output()).not.toContain(PASSWORD);
  });
});

describe('MongoDB', () => {
  let mongod: MongodProcess;
  let uri: (password: string, clientName?: string) => Promise<string>;
  beforeAll(async () => {
    const keyFile = join(folder.path, 'set.key');
    await writeFile(keyFile, 'ofThisTestAlone', { mode: 0o600 });
    const tls = [
      '--tlsMode',
      'allowTLS',
      '--tlsCertificateKeyFile',
      await both('server'),
      '--tlsCAFile',
      pem('ca.pem'),
    ];
    mongod = await startMongodProcess('--replSet', 'secured', '--keyFile', keyFile, ...tls);
    const { address, command } = mongod;
    await command({ replSetInitiate: { _id: 'secured', members: [{ _id: 0, host: address }] } });
    // Whoever comes from the same machine may make the first user, and nothing else.
    await vi.waitFor(() => command({ createUser: USERNAME, pwd: PASSWORD, roles: ['root'] }), { timeout: 30_000 });
    uri = async (password, clientName = 'gateway') => {
      const files = `tlsCAFile=${pem('ca.pem')}&tlsCertificateKeyFile=${await both(clientName)}`;
      return `mongodb://${USERNAME}:${password}@${address}/?replicaSet=secured&authSource=admin&tls=true&${files}`;
    };
    const client = new MongoClient(await uri(PASSWORD));
    for (const tlsMode of ['preferTLS', 'requireTLS']) await client.db('admin').command({ setParameter: 1, tlsMode });
    await client.close();
  });
  afterAll(() => mongod[Symbol.asyncDispose]());

  test('the service as built keeps its records there', async () => {
    await using service = await startService({ KEYREEVE_MONGODB_URI: await uri(PASSWORD) });
    await call((done) => service.keys.createKey(toCreate({ keyspace: 'hygiara' }), done));
    expect(service.output()).not.toContain(PASSWORD);
  });

  test.each([
    ['another password', () => uri('wrong-horse'), 'knows no such user with that password'],
    ["another CA's certificate", () => uri(PASSWORD, 'stranger'), 'MongoDB'],
    [
      'no TLS',
      async () => (await uri(PASSWORD)).replace('tls=true', 'tls=false').replace(/&tls.*File=.*/, ''),
      'MongoDB',
    ],
  ])('with %s it does not start, and says why without the password', async (_, wrong, why) => {
    const started = startService({ KEYREEVE_MONGODB_URI: await wrong() });
    const message = await started.then(
      () => 'it started',
      (error: unknown) => String(error),
    );
    expect(message).toContain('cannot start');
    expect(message).toContain(why);
    expect(message).not.toMatch(/(right|wrong)-horse/);
  });
});
