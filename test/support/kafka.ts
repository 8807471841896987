import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { open, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import kafkajs, { type Admin, type ITopicConfig, Kafka, logLevel } from 'kafkajs';
import { freePort } from './free-port.js';
import { guard, makeGuardedFolder } from './guard.js';
import type { OwnServer } from './own-server.js';
import { lastLines, runCommand } from './run-command.js';
import { serverFolder } from './server-folder.js';
import { getKafka } from './server-programs.js';

// Node finds these names on the default export alone.
const { KafkaJSNumberOfRetriesExceeded, KafkaJSProtocolError } = kafkajs;

/** How the tests' broker is set, apart from its addresses and folder. */
export const brokerSettings = {
  'process.roles': 'broker,controller',
  'node.id': '1',
  'controller.listener.names': 'CONTROLLER',
  'listener.security.protocol.map': 'CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT',
  'auto.create.topics.enable': 'false',
  'offsets.topic.replication.factor': '1',
  'offsets.topic.num.partitions': '1',
  'transaction.state.log.replication.factor': '1',
  'transaction.state.log.min.isr': '1',
  'transaction.state.log.num.partitions': '1',
  'group.initial.rebalance.delay.ms': '0',
  // A broker that was killed cannot join again before its old session has run out, after 9 s by default.
  'broker.session.timeout.ms': '3000',
  'broker.heartbeat.interval.ms': '500',
};

const jvmFlags = [
  // Up sooner than with the collector and the compiler that are made for long runs.
  '-XX:+UseSerialGC',
  '-XX:TieredStopAtLevel=1',
  `-Dlog4j.configuration=${new URL('log4j.properties', import.meta.url).href}`,
];

const startMsMax = 60_000;
const stopMsMax = 20_000;

export interface OwnKafka extends OwnServer {
  readonly brokers: string[];
  /** Where the broker asks for TLS, a certificate and a login; empty without `secure`. */
  readonly secureBrokers: string[];
}

export interface KafkaOptions {
  /** Nobody kills it: it may stand still for as long as Kafka's default allows before it is taken for dead. */
  readonly lasting?: boolean;
  /** Told the broker's port before it starts; answers the one that clients are to connect to in its place. */
  readonly advertise?: (port: number) => Promise<number>;
  /** Opens a second port, for those who have a certificate and this login (PLAIN and SCRAM-SHA-512). */
  readonly secure?: SecureListener;
}

export interface SecureListener {
  /** PEM files: of the broker, and of the CA of its clients. */
  readonly certFile: string;
  readonly keyFile: string;
  readonly clientCaFile: string;
  readonly username: string;
  readonly password: string;
}

/**
 * Starts a broker that is its own controller; resolves once it answers.
 * @throws NoServer where there is no Kafka to start
 * @throws Error with the end of the broker's log where it does not come up
 */
export async function startKafka({ lasting = false, advertise, secure }: KafkaOptions = {}): Promise<OwnKafka> {
  const { java, classPath } = await getKafka();
  const folder = await makeGuardedFolder(join(serverFolder(), 'keyreeve-kafka-'));
  const log = join(folder.path, 'kafka.log');
  const properties = join(folder.path, 'server.properties');
  const port = await freePort();
  const advertised = advertise ? await advertise(port) : port;
  const brokers = [`127.0.0.1:${advertised}`];
  const securePort = secure && (await freePort());
  const jvm = [...jvmFlags, '-cp', classPath];
  const secureListener = securePort === undefined ? '' : `,SECURE://localhost:${securePort}`;
  let child: ChildProcess | undefined;

  async function prepare() {
    const controller = `127.0.0.1:${await freePort()}`;
    await writeFile(
      properties,
      toProperties({
        ...brokerSettings,
        ...(lasting && { 'broker.session.timeout.ms': '9000' }),
        'controller.quorum.voters': `1@${controller}`,
        listeners: `PLAINTEXT://127.0.0.1:${port},CONTROLLER://${controller}${secureListener}`,
        'advertised.listeners': `PLAINTEXT://127.0.0.1:${advertised}${secureListener}`,
        'log.dirs': join(folder.path, 'data'),
        ...(secure && (await secureProperties(secure, join(folder.path, 'broker.pem')))),
      }),
    );
    // The form of Kafka's own ids. With "=": it may begin with "-".
    const clusterId = `--cluster-id=${randomBytes(16).toString('base64url')}`;
    const scram = secure && ['--add-scram', `SCRAM-SHA-512=[name=${secure.username},password=${secure.password}]`];
    const format = ['kafka.tools.StorageTool', 'format', clusterId, '--config', properties, ...(scram ?? [])];
    await runCommand(java, [...jvm, ...format]);
  }
  async function start() {
    const output = await open(log, 'a');
    // Detached: Ctrl-C in a terminal is for the test run; it stops its servers itself.
    const started = spawn(java, ['-Xmx512m', ...jvm, 'kafka.Kafka', properties], {
      stdio: ['ignore', output.fd, output.fd],
      detached: true,
    });
    child = started;
    if (started.pid !== undefined) {
      const guarded = guard({ pid: started.pid });
      started.once('exit', () => guarded.release());
    }
    await output.close();
    if (await comesUp(started, brokers)) return;
    throw new Error(`Kafka did not start; the end of its log:\n${lastLines(await readFile(log, 'utf8'), 30)}`);
  }
  async function end(signal: 'SIGTERM' | 'SIGKILL') {
    if (!child || hasEnded(child)) return;
    const exit = once(child, 'exit');
    child.kill(signal);
    const late = setTimeout(() => child?.kill('SIGKILL'), stopMsMax);
    await exit;
    clearTimeout(late);
  }
  async function dispose() {
    await end('SIGKILL');
    await folder[Symbol.asyncDispose]();
  }

  try {
    await prepare();
    await start();
  } catch (error) {
    await dispose();
    throw error;
  }
  return {
    brokers,
    secureBrokers: securePort === undefined ? [] : [`localhost:${securePort}`],
    get pid() {
      return child && !hasEnded(child) ? child.pid : undefined;
    },
    stop: () => end('SIGTERM'),
    kill: () => end('SIGKILL'),
    restart: start,
    [Symbol.asyncDispose]: dispose,
  };
}

export interface ConsumedMessage {
  key: string;
  value: string;
}

/**
 * Reads the first `count` messages of a topic, of all its partitions, with the consumer that Kafka itself ships. Keys
 * and values must hold neither tab nor line break.
 * @throws Error where fewer have come after `timeoutMs` without one
 */
export async function consumeWithConsole(
  brokers: readonly string[],
  topic: string,
  { count, timeoutMs = 60_000 }: { count: number; timeoutMs?: number },
): Promise<ConsumedMessage[]> {
  const { java, classPath } = await getKafka();
  const reading = ['--topic', topic, '--from-beginning', '--max-messages', `${count}`, '--timeout-ms', `${timeoutMs}`];
  const { stdout, stderr } = await runCommand(java, [
    ...['-Xmx256m', ...jvmFlags, '-cp', classPath, 'org.apache.kafka.tools.consumer.ConsoleConsumer'],
    ...['--bootstrap-server', brokers.join(','), ...reading],
    ...['--property', 'print.key=true', '--property', 'key.separator=\t'],
  ]);
  const messages = stdout
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      const tab = line.indexOf('\t');
      return { key: line.slice(0, tab), value: line.slice(tab + 1) };
    });
  if (messages.length < count) {
    throw new Error(`${topic} gave ${messages.length} of ${count} messages: ${lastLines(stderr, 5)}`);
  }
  return messages;
}

/** Whether one of the brokers answers and knows of a broker that can be produced to. */
export async function kafkaAnswers(brokers: string[]): Promise<boolean> {
  const admin = new Kafka({ brokers, logLevel: logLevel.NOTHING, retry: { retries: 0 } }).admin();
  try {
    await admin.connect();
    return (await admin.describeCluster()).brokers.length > 0;
  } catch {
    return false; // it does not listen yet, or knows no broker yet
  } finally {
    await admin.disconnect();
  }
}

/** Makes a topic where there is none, and resolves once it can be written and read: kafkajs's own wait gives up early. */
export async function createTopic(admin: Admin, topic: ITopicConfig): Promise<void> {
  await admin.createTopics({ topics: [topic], waitForLeaders: false });
  for (;;) {
    try {
      await admin.fetchTopicOffsets(topic.topic);
      return;
    } catch (error) {
      const cause = error instanceof KafkaJSNumberOfRetriesExceeded ? error.cause : error;
      if (!(cause instanceof KafkaJSProtocolError && cause.retriable)) throw error;
      await delay(50);
    }
  }
}

async function secureProperties(secure: SecureListener, keyStore: string): Promise<Record<string, string>> {
  const { certFile, keyFile, clientCaFile, username, password } = secure;
  await writeFile(keyStore, (await readFile(keyFile, 'utf8')) + (await readFile(certFile, 'utf8')));
  const login = `org.apache.kafka.common.security.plain.PlainLoginModule required user_${username}="${password}";`;
  const scram = 'org.apache.kafka.common.security.scram.ScramLoginModule required;';
  const own = {
    'ssl.keystore.type': 'PEM',
    'ssl.keystore.location': keyStore,
    'ssl.truststore.type': 'PEM',
    'ssl.truststore.location': clientCaFile,
    'ssl.client.auth': 'required',
    'sasl.enabled.mechanisms': 'PLAIN,SCRAM-SHA-512',
    'plain.sasl.jaas.config': login,
    'scram-sha-512.sasl.jaas.config': scram,
  };
  return {
    'listener.security.protocol.map': 'CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SECURE:SASL_SSL',
    'inter.broker.listener.name': 'PLAINTEXT',
    ...Object.fromEntries(Object.entries(own).map(([name, value]) => [`listener.name.secure.${name}`, value])),
  };
}

async function comesUp(child: ChildProcess, brokers: string[]): Promise<boolean> {
  const deadline = performance.now() + startMsMax;
  while (!hasEnded(child) && performance.now() < deadline) {
    if (await kafkaAnswers(brokers)) return true;
    await delay(100);
  }
  return false;
}

function hasEnded(child: ChildProcess): boolean {
  return child.exitCode !== null || child.signalCode !== null;
}

function toProperties(settings: Record<string, string>): string {
  return Object.entries(settings)
    .map(([name, value]) => `${name}=${value}\n`)
    .join('');
}
