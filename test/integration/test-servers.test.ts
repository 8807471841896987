import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { EventEmitter, once } from 'node:events';
import { existsSync } from 'node:fs';
import { readdir, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import kafkajs, { Kafka, logLevel, Partitioners } from 'kafkajs';
import { MongoClient } from 'mongodb';
import { describe, expect, inject, test } from 'vitest';
import { makeGuardedFolder } from '../support/guard.js';
import { brokerSettings, consumeWithConsole, createTopic, startKafka } from '../support/kafka.js';
import { replicaSetSettings, startMongod } from '../support/mongod.js';
import { thisMachine } from '../support/server-programs.js';
import { getProgram, givenAddress, kafkaKind, mongodbKind } from '../support/server-sources.js';
import type { Installer, Machine } from '../support/server-sources.js';

const journaled = { writeConcern: { w: 'majority' as const, journal: true } };

describe('the shared MongoDB', () => {
  test('commits a transaction whole or not at all', async () => {
    await using mongodb = await openDatabase(inject('mongodbUri'));
    const { client, db } = mongodb;
    const keys = await db.createCollection<{ _id: string }>('keys');
    await client.withSession((session) =>
      session.withTransaction(async () => {
        await keys.insertOne({ _id: 'first' }, { session });
        await keys.insertOne({ _id: 'second' }, { session });
      }),
    );
    const failing = client.withSession((session) =>
      session.withTransaction(async () => {
        await keys.insertOne({ _id: 'third' }, { session });
        await keys.insertOne({ _id: 'first' }, { session });
      }),
    );
    await expect(failing).rejects.toMatchObject({ code: 11000 });
    expect((await keys.find().toArray()).map((key) => key._id).sort()).toEqual(['first', 'second']);
  });

  test('shows a write in a change stream', async () => {
    await using mongodb = await openDatabase(inject('mongodbUri'));
    const keys = await mongodb.db.createCollection<{ _id: string }>('keys');
    const stream = keys.watch();
    await stream.tryNext(); // opens it: what is written from here on must come
    await keys.insertOne({ _id: 'watched' }, journaled);
    expect(await stream.next()).toMatchObject({ operationType: 'insert', documentKey: { _id: 'watched' } });
    await stream.close();
  });
});

describe('the shared Kafka', () => {
  test('gives back what was produced, to kafkajs and to the consumer of Kafka itself', async () => {
    const brokers = inject('kafkaBrokers');
    const topic = `test-servers-${randomUUID()}`;
    const messages = ['first', 'second', 'third'].map((value) => ({
      key: 'hotmetal/acme',
      value: `{"is":"${value}"}`,
    }));
    await produce(brokers, topic, messages);
    expect(await consumeWithKafkajs(brokers, topic, messages.length)).toEqual(messages);
    expect(await consumeWithConsole(brokers, topic, { count: messages.length })).toEqual(messages);
  });
});

describe('a server of a test’s own', () => {
  test('mongod has, after a crash and after a stop, what it had, at the same address', async () => {
    await using mongod = await startMongod();
    await using mongodb = await openDatabase(mongod.uri);
    const keys = mongodb.db.collection<{ _id: string }>('keys');
    await keys.insertOne({ _id: 'before the crash' }, journaled);
    const firstPid = mongod.pid;

    await mongod.kill();
    expect(mongod.pid).toBeUndefined();
    await mongod.restart();
    expect(mongod.pid).not.toBe(firstPid);
    expect(await keys.countDocuments()).toBe(1);

    await mongod.stop();
    expect(mongod.pid).toBeUndefined();
    await mongod.restart();
    await keys.insertOne({ _id: 'after the stop' }, journaled);
    expect(await keys.countDocuments()).toBe(2);
  });

  test('mongod elects by the settings that leases need', async () => {
    await using mongod = await startMongod();
    await using mongodb = await openDatabase(mongod.uri);
    const { config } = await mongodb.client.db('admin').command({ replSetGetConfig: 1 });
    expect(config).toMatchObject({ settings: replicaSetSettings, writeConcernMajorityJournalDefault: true });
  });

  test(
    'Kafka has, after a crash and after a stop, what it had, at the same address',
    { timeout: 240_000 },
    async () => {
      await using kafka = await startKafka();
      const [before, between, after] = [message('before'), message('between'), message('after')];
      await produce(kafka.brokers, 'kept', [before]);

      await kafka.kill();
      expect(kafka.pid).toBeUndefined();
      await kafka.restart();
      await produce(kafka.brokers, 'kept', [between]);

      await kafka.stop();
      expect(kafka.pid).toBeUndefined();
      await kafka.restart();
      await produce(kafka.brokers, 'kept', [after]);
      expect(await consumeWithKafkajs(kafka.brokers, 'kept', 3)).toEqual([before, between, after]);
    },
  );

  test('Kafka makes no topic that nobody asked it to make', async () => {
    await using kafka = await startKafka();
    const admin = toKafka(kafka.brokers).admin();
    await admin.connect();
    const configNames = ['auto.create.topics.enable'];
    const { resources } = await admin.describeConfigs({
      resources: [{ type: kafkajs.ConfigResourceTypes.BROKER, name: brokerSettings['node.id'], configNames }],
      includeSynonyms: false,
    });
    expect(resources[0]?.configEntries).toMatchObject([{ configName: configNames[0], configValue: 'false' }]);
    await admin.disconnect();
  });
});

describe('what must not outlive a run', () => {
  test('goes when the run is killed: processes and folders alike', async () => {
    // The sleeper writes to the owner's output, which therefore closes only when both are gone.
    const owner = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '--eval', ownerProgram], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const closed = once(owner, 'close');
    const [line] = (await once(owner.stdout.setEncoding('utf8'), 'data')) as [string];
    const { folder } = JSON.parse(line) as { folder: string };
    expect(existsSync(folder)).toBe(true);
    owner.kill('SIGKILL');
    await closed;
    await expect.poll(() => existsSync(folder)).toBe(false);
  });
});

describe('where the servers come from', () => {
  const cases = [
    { kind: mongodbKind, named: '/opt/mongod', cached: '/home/me/.cache/keyreeve/mongod-1/mongod' },
    { kind: kafkaKind, named: '/opt/kafka', cached: '/home/me/.cache/keyreeve/kafka-3.9.1' },
  ].map(({ kind, named, cached }) => {
    const files =
      kind === kafkaKind ? [`${named}/libs/kafka_2.13-4.0.0.jar`, `${cached}/kafka_2.13-3.9.1.jar`] : [named, cached];
    return { title: kind.title, kind, named, program: kind === kafkaKind ? `${named}/libs` : named, cached, files };
  });

  test.for(cases)('$title: an address counts where one is given, and an empty one is none', ({ kind }) => {
    const address = (value?: string) => givenAddress(kind, machineWith({ env: { [kind.addressVariable]: value } }));
    expect([address('there:1'), address(''), address()]).toEqual(['there:1', undefined, undefined]);
  });

  test.for(cases)('$title: the program of the variable goes before the one in the cache', async (kase) => {
    const { kind, named, program, files } = kase;
    const machine = machineWith({ env: { [kind.programVariable]: named }, files });
    expect(await getProgram(kind, machine, [mustNotInstall], ignore)).toBe(program);
  });

  test.for(cases)('$title: the cache goes before any download, and XDG_CACHE_HOME says where it is', async (kase) => {
    const { kind, cached, files } = kase;
    expect(await getProgram(kind, machineWith({ files }), [mustNotInstall], ignore)).toBe(cached);
    const moved = files.map((path) => path.replace('/home/me/.cache', '/var/cache/me'));
    const machine = machineWith({ env: { XDG_CACHE_HOME: '/var/cache/me' }, files: moved });
    expect(await getProgram(kind, machine, [mustNotInstall], ignore)).toBe(
      cached.replace('/home/me/.cache', '/var/cache/me'),
    );
  });

  test.for(cases)(
    '$title: a variable that names no program is an error, not a reason to take another',
    async (kase) => {
      const { kind, files } = kase;
      const machine = machineWith({ env: { [kind.programVariable]: '/misspelled' }, files });
      await expect(getProgram(kind, machine, [mustNotInstall], ignore)).rejects.toThrow(
        `${kind.programVariable}: does not name ${kind.program}`,
      );
    },
  );

  test('a download comes last, by the first installer that works, and says so while it runs', async () => {
    await using cache = await makeGuardedFolder(join(tmpdir(), 'keyreeve-cache-'));
    const progress: string[] = [];
    const machine = withCache(cache.path);
    const installers = [installer('one', 'broken'), installer('two', 'works'), mustNotInstall];
    const program = await getProgram(mongodbKind, machine, installers, (line) => progress.push(line));
    expect(program).toBe(join(cache.path, 'keyreeve', 'mongod-1', 'mongod'));
    expect(progress).toEqual([expect.stringMatching(/fetching MongoDB into .*, once/)]);
    expect(await getProgram(mongodbKind, machine, [mustNotInstall], ignore)).toBe(program);
  });

  test('of two runs that download at once both get a whole program, and nothing half-done stays', async () => {
    await using cache = await makeGuardedFolder(join(tmpdir(), 'keyreeve-cache-'));
    const machine = withCache(cache.path);
    const bothAreIn = meeting(2);
    const together: Installer = {
      name: 'together',
      async install(folder) {
        await bothAreIn();
        await installer('whole', 'works').install(folder);
      },
    };
    const [one, two] = await Promise.all([1, 2].map(() => getProgram(mongodbKind, machine, [together], ignore)));
    expect(one).toBe(two);
    expect(await readdir(join(cache.path, 'keyreeve'))).toEqual(['mongod-1']);
  });

  test.for(cases)('$title: where nothing works, the error tells what was tried and every way out', async ({ kind }) => {
    await using cache = await makeGuardedFolder(join(tmpdir(), 'keyreeve-cache-'));
    const installers = [installer('one', 'broken'), installer('two', 'broken')];
    const error: unknown = await getProgram(kind, withCache(cache.path), installers, ignore).catch((e: unknown) => e);
    const message = (error as Error).message;
    const tried = [
      `${kind.addressVariable}: not set`,
      `${kind.programVariable}: not set`,
      'cache: ',
      'one: is broken',
      'two: is broken',
    ];
    const ways = [
      `${kind.addressVariable}=`,
      `${kind.programVariable}=`,
      'install ',
      'docker compose up',
      '--project unit',
    ];
    for (const part of [...tried, ...ways, ...kind.waysOut]) expect(message).toContain(part);
    expect(await readdir(join(cache.path, 'keyreeve'))).toEqual([]);
  });
});

const guardModule = new URL('../support/guard.ts', import.meta.url).href;
const ownerProgram = `
  import { spawn } from 'node:child_process';
  import { guard, makeGuardedFolder } from '${guardModule}';
  const sleeper = spawn(process.execPath, ['--eval', 'setInterval(() => {}, 1000)'], { stdio: 'inherit', detached: true });
  guard({ pid: sleeper.pid });
  const folder = await makeGuardedFolder('${join(tmpdir(), 'keyreeve-owner-')}');
  console.log(JSON.stringify({ folder: folder.path }));
`;

const mustNotInstall: Installer = {
  name: 'not to be used',
  install: () => Promise.reject(new Error('something was downloaded')),
};

function installer(name: string, behaviour: 'works' | 'broken'): Installer {
  return {
    name,
    async install(folder) {
      await writeFile(join(folder, behaviour === 'works' ? 'mongod' : 'half'), '');
      if (behaviour === 'broken') throw new Error('is broken');
    },
  };
}

function machineWith({ env = {}, files = [] }: { env?: Machine['env']; files?: readonly string[] }): Machine {
  return {
    env,
    home: '/home/me',
    isFile: (path) => files.includes(path),
    list: (folder) => files.filter((path) => dirname(path) === folder).map((path) => basename(path)),
  };
}

function withCache(folder: string): Machine {
  return { ...thisMachine, env: { XDG_CACHE_HOME: folder } };
}

function ignore(): void {
  // The progress of a download is of no interest here.
}

/** Holds its callers until there are `count` of them. */
function meeting(count: number): () => Promise<void> {
  const arrivals = new EventEmitter();
  const complete = once(arrivals, 'complete');
  return async () => {
    if (--count === 0) arrivals.emit('complete');
    await complete;
  };
}

async function openDatabase(uri: string) {
  const client = await MongoClient.connect(uri);
  const db = client.db(`test-servers-${randomUUID()}`);
  return {
    client,
    db,
    async [Symbol.asyncDispose]() {
      await db.dropDatabase();
      await client.close();
    },
  };
}

interface Message {
  key: string;
  value: string;
}

function message(what: string): Message {
  return { key: 'hotmetal/acme', value: `{"is":"${what}"}` };
}

function toKafka(brokers: string[]): Kafka {
  return new Kafka({ brokers, logLevel: logLevel.NOTHING });
}

/** Into one partition, so that order means something; makes the topic where there is none. */
async function produce(brokers: string[], topic: string, messages: Message[]): Promise<void> {
  const kafka = toKafka(brokers);
  const admin = kafka.admin();
  await admin.connect();
  await createTopic(admin, { topic, numPartitions: 1 });
  await admin.disconnect();
  const producer = kafka.producer({
    createPartitioner: Partitioners.DefaultPartitioner,
    allowAutoTopicCreation: false,
  });
  await producer.connect();
  await producer.send({ topic, acks: -1, messages });
  await producer.disconnect();
}

async function consumeWithKafkajs(brokers: string[], topic: string, count: number): Promise<Message[]> {
  const consumer = toKafka(brokers).consumer({ groupId: `test-servers-${randomUUID()}` });
  await consumer.connect();
  await consumer.subscribe({ topic, fromBeginning: true });
  const messages: Message[] = [];
  const all = new EventEmitter();
  const consumed = once(all, 'consumed');
  await consumer.run({
    eachMessage({ message }) {
      messages.push({ key: String(message.key), value: String(message.value) });
      if (messages.length === count) all.emit('consumed');
      return Promise.resolve();
    },
  });
  await consumed;
  await consumer.disconnect();
  return messages;
}
