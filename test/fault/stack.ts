/** The service with what is behind it, and the faults that can be made there. */
import { execFileSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

import { readAuditFile } from '../../src/audit/read-file.js';
import { readTopic } from '../../src/audit/read-topic.js';
import type { Entry } from '../../src/audit/verify-chain.js';
import { LEASE_MS } from '../../src/store/mongodb/leases/membership.js';
import { silentLog } from '../support/audit.js';
import { type OwnKafka, startKafka } from '../support/kafka.js';
import { pause, resume } from '../support/pause.js';
import { type Service, type ServiceSettings, startService } from '../support/service.js';
import { type Direction, startProxy, type TcpProxy } from '../support/tcp-proxy.js';
import { startThreeMembers, type ThreeMembers } from '../support/three-members.js';
import { FAIL_POINTS, type FailPoint, type Order } from './fail-points.js';
import type { Program } from './program.js';
import type { Random } from './random.js';

const KEYSPACES = fileURLToPath(new URL('keyspaces.yaml', import.meta.url));

export const CLOCK_SET = 'clock set back and forward';

/** Something that goes wrong and is put right again, while clients go on asking. */
export interface Fault {
  readonly name: string;
  /** Answers how many processes ended by SIGKILL. */
  readonly make: (random: Random) => Promise<number>;
}

export interface Stack extends AsyncDisposable {
  readonly replicas: readonly Service[];
  /** Of the leases by which replicas answer from memory; absent: they need none. */
  readonly leaseMs?: number;
  readonly faults: readonly Fault[];
  /** Starts again what has ended by itself. */
  ensureUp(): Promise<void>;
  /** All that was published until now, as a consumer receives it. */
  published(): Promise<Entry[]>;
  /** Lines of the log in which a replica calls something a defect of its own. */
  defects(): string[];
}

export interface StackOptions {
  /** The failing service, which is told where to die; absent: the service as built. */
  readonly program?: Program;
}

export async function startEmbeddedStack(options: StackOptions): Promise<Stack> {
  const service = await startReplica({}, options);
  return {
    replicas: [service],
    faults: [
      { name: 'service killed', make: (random) => killReplica(service, random) },
      ...(options.program ? failuresWithin([service]) : []),
      { name: 'disk full', make: (random) => fillDisk(service, random) },
    ],
    ensureUp: () => ensureUp([service]),
    published: () => collect(readAuditFile(join(service.dataDir, 'audit.jsonl'))),
    defects: () => defectsIn([service]),
    [Symbol.asyncDispose]: () => service[Symbol.asyncDispose](),
  };
}

export interface ReplicatedStack extends Stack {
  readonly mongodb: ThreeMembers;
  readonly kafka: OwnKafka;
  /** As `published`, one after the other. */
  entries(): AsyncIterable<Entry>;
}

/** Two replicas on a set of three members and a Kafka, each behind a proxy. */
export async function startReplicatedStack(options: StackOptions): Promise<ReplicatedStack> {
  const started: AsyncDisposable[] = [];
  const dispose = async () => {
    for (const one of started.splice(0).reverse()) await one[Symbol.asyncDispose]();
  };
  let proxy: TcpProxy | undefined;
  const [mongodb, kafka] = await Promise.all([
    startThreeMembers(),
    startKafka({ advertise: async (port) => (proxy = await startProxy(port)).port }),
  ]);
  if (!proxy) throw new Error('Kafka was started without its proxy');
  const kafkaProxy = proxy;
  started.push(kafkaProxy, mongodb, kafka);
  const topic = `fault.${randomUUID()}`;
  const settings: ServiceSettings = {
    KEYREEVE_KAFKA_BROKERS: kafka.brokers.join(),
    KEYREEVE_AUDIT_TOPIC: topic,
    KEYREEVE_KAFKA_ALLOW_SINGLE_BROKER: 'true',
  };
  const replicas: Service[] = [];
  try {
    while (replicas.length < 2) {
      const replica = await startReplica({ ...settings, KEYREEVE_MONGODB_URI: mongodb.uri }, options);
      replicas.push(replica);
      started.push(replica);
    }
  } catch (error) {
    await dispose();
    throw error;
  }
  const entries = () => readTopic({ brokers: kafka.brokers, topic }, silentLog);
  return {
    replicas,
    leaseMs: LEASE_MS,
    mongodb,
    kafka,
    entries,
    faults: [
      ...replicas.map((replica, index) => ({
        name: `replica ${index} killed`,
        make: (random: Random) => killReplica(replica, random),
      })),
      ...(options.program ? failuresWithin(replicas) : []),
      ...setFaults(mongodb),
      ...kafkaFaults(kafka, kafkaProxy, replicas),
    ],
    ensureUp: () => ensureUp(replicas),
    published: () => collect(entries()),
    defects: () => defectsIn(replicas),
    [Symbol.asyncDispose]: dispose,
  };
}

function startReplica(settings: ServiceSettings, { program }: StackOptions): Promise<Service> {
  const all = { ...settings, KEYREEVE_KEYSPACES: KEYSPACES };
  return startService(all, program && { program: [program.path] });
}

function defectsIn(replicas: readonly Service[]): string[] {
  return replicas.flatMap((replica) => replica.output().split('\n')).filter((line) => line.includes('"INTERNAL"'));
}

async function collect(entries: AsyncIterable<Entry>): Promise<Entry[]> {
  const collected: Entry[] = [];
  for await (const entry of entries) if (entry.partial !== true) collected.push(entry);
  return collected;
}

async function killReplica(replica: Service, random: Random): Promise<number> {
  await sleep(random.between(0, 100));
  await replica.kill();
  await restart(replica);
  return 1;
}

const RESTART_MS_MAX = 60_000;

/** As an operator's supervisor does: again, as long as what is behind it is away. */
async function restart(replica: Service): Promise<void> {
  const endMs = performance.now() + RESTART_MS_MAX;
  for (;;) {
    try {
      await replica.restart();
      return;
    } catch (error) {
      if (performance.now() > endMs) throw error;
    }
  }
}

async function ensureUp(replicas: readonly Service[]): Promise<void> {
  for (const replica of replicas) if (!replica.running) await restart(replica);
}

function tell(replica: Service, order: Order): void {
  replica.tell(JSON.stringify(order));
}

/** How long a replica may live on that comes to no place where it was told to die, such as one that does not lead. */
const DEATH_MS_MAX = 3000;

function deaths(replicas: readonly Service[]): Fault[] {
  const die = (at: FailPoint): Fault => ({
    name: `dies ${at}`,
    async make(random) {
      const nth = random.between(1, 6);
      // Whichever comes there first: only one of them publishes.
      for (const replica of replicas) tell(replica, { order: 'die', at, nth: at === 'while-leading' ? 1 : nth });
      await Promise.race([...replicas.map((replica) => replica.ended()), sleep(DEATH_MS_MAX)]);
      for (const replica of replicas) {
        await replica.kill();
        await restart(replica);
      }
      return replicas.length;
    },
  });
  return FAIL_POINTS.map(die);
}

const HOUR_MS = 3_600_000;
const AWAY_MS = 500;

function failuresWithin(replicas: readonly Service[]): Fault[] {
  return [
    ...deaths(replicas),
    {
      name: CLOCK_SET,
      async make(random) {
        const replica = random.pick(replicas);
        for (const offsetMs of [-HOUR_MS, HOUR_MS, 0]) {
          tell(replica, { order: 'clock', offsetMs });
          await sleep(200);
        }
        return 0;
      },
    },
    {
      name: 'store away',
      async make() {
        for (const replica of replicas) tell(replica, { order: 'store-away', ms: AWAY_MS });
        await sleep(AWAY_MS);
        return 0;
      },
    },
    {
      name: 'sink fails',
      async make() {
        for (const replica of replicas) tell(replica, { order: 'sink-fails', ms: AWAY_MS });
        await sleep(AWAY_MS);
        return 0;
      },
    },
  ];
}

const DISK_FULL_MS = 500;

/** Its files may not grow, which fails as on a full disk. util-linux's prlimit; elsewhere than on Linux nothing is done. */
async function fillDisk(service: Service, random: Random): Promise<number> {
  const limit = (bytes: string) => execFileSync('prlimit', ['--pid', `${service.pid}`, `--fsize=${bytes}:unlimited`]);
  if (process.platform !== 'linux') return 0;
  const { size } = await stat(join(service.dataDir, 'keyreeve.db-wal'));
  limit(`${size + random.between(0, 20_000)}`);
  await sleep(DISK_FULL_MS);
  // As often as not it is killed while nothing can be written.
  if (random.next() < 0.5) {
    await service.kill();
    await restart(service);
    return 1;
  }
  limit('unlimited');
  return 0;
}

const PAUSE_MS = 1500;
const NETWORK_MS = 1000;
const DELAY_MS = 150;

function setFaults(mongodb: ThreeMembers): Fault[] {
  const through = (name: string, hurt: (proxy: TcpProxy, random: Random) => void): Fault => ({
    name: `MongoDB's primary ${name}`,
    async make(random) {
      const { proxy } = await mongodb.primary();
      return hurtFor(proxy, random, hurt);
    },
  });
  return [
    {
      name: "MongoDB's primary killed",
      async make() {
        const old = await mongodb.primary();
        await old.kill();
        await mongodb.primary();
        await old.restart();
        await mongodb.whole();
        return 1;
      },
    },
    {
      name: "MongoDB's primary paused until it is deposed, and woken up",
      async make() {
        const old = await mongodb.primary();
        await old.pause();
        try {
          for (;;) if ((await mongodb.primary()) !== old) break;
          await sleep(PAUSE_MS);
        } finally {
          old.resume();
        }
        await mongodb.whole();
        return 0;
      },
    },
    {
      name: 'a secondary of MongoDB killed',
      async make() {
        const member = await mongodb.secondary();
        await member.kill();
        await sleep(PAUSE_MS);
        await member.restart();
        await mongodb.whole();
        return 1;
      },
    },
    {
      name: 'a secondary of MongoDB paused',
      async make() {
        const member = await mongodb.secondary();
        await member.pause();
        await sleep(PAUSE_MS);
        member.resume();
        await mongodb.whole();
        return 0;
      },
    },
    ...networkFaults(through),
  ];
}

function kafkaFaults(kafka: OwnKafka, proxy: TcpProxy, replicas: readonly Service[]): Fault[] {
  return [
    {
      name: 'Kafka killed',
      async make() {
        await kafka.kill();
        await sleep(PAUSE_MS);
        await kafka.restart();
        return 1;
      },
    },
    {
      name: 'Kafka paused',
      async make(random) {
        await pause(kafka.pid);
        await sleep(random.between(PAUSE_MS, 4 * PAUSE_MS));
        resume(kafka.pid);
        return 0;
      },
    },
    {
      name: 'Kafka restarted while the service knows nothing of it',
      async make(random) {
        await kafka.kill();
        const replica = random.pick(replicas);
        await replica.kill();
        await restart(replica);
        await kafka.restart();
        return 2;
      },
    },
    ...networkFaults((name, hurt) => ({
      name: `Kafka ${name}`,
      make: (random) => hurtFor(proxy, random, hurt),
    })),
  ];
}

type Hurt = (proxy: TcpProxy, random: Random) => void;

function networkFaults(through: (name: string, hurt: Hurt) => Fault): Fault[] {
  const direction = (random: Random): Direction => random.pick(['up', 'down']);
  return [
    through('behind a slow network', (proxy, random) => proxy.delay(DELAY_MS, [direction(random)])),
    through('behind a network that swallows', (proxy, random) => proxy.drop([direction(random)])),
    through('half-closed', (proxy, random) => proxy.halfClose(direction(random))),
    through('cut off for a moment', (proxy) => proxy.cut()),
    through('cut off', (proxy) => proxy.sever()),
  ];
}

async function hurtFor(proxy: TcpProxy, random: Random, hurt: Hurt): Promise<number> {
  hurt(proxy, random);
  await sleep(random.between(NETWORK_MS / 2, NETWORK_MS * 2));
  proxy.mend();
  return 0;
}
