/** Three replicas on a set of three members, each with a network of its own towards them. */
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { type Db, MongoClient } from 'mongodb';

import { type Service, type ServiceSettings, startService } from '../../support/service.js';
import { type Direction, startProxy, type TcpProxy } from '../../support/tcp-proxy.js';
import { startThreeMembers, type ThreeMembers } from '../../support/three-members.js';
import type { Order, Report } from '../fail-points.js';
import type { Program } from '../program.js';

const KEYSPACES = fileURLToPath(new URL('../keyspaces.yaml', import.meta.url));
const REPORT_MS_MAX = 10_000;
const LOOK_MS = 10;

/** Between one replica and all members of the set. Nobody else's connections suffer. */
export interface Link {
  delay(ms: number, directions?: readonly Direction[]): void;
  /** Takes what is sent and passes nothing on. */
  swallow(directions?: readonly Direction[]): void;
  /** Resets connections, and all that are tried. */
  sever(): void;
  /** Keeps back what the change stream brings, for so long or until it is mended, while all else goes on. */
  delayStream(ms?: number): void;
  /** Resolves once the change stream has brought something as far as here. */
  nextOfStream(): Promise<void>;
  /** All is as before. What was kept back arrives; what was swallowed does not. */
  mend(): void;
}

export interface RevocationReplica {
  readonly index: number;
  readonly service: Service;
  readonly link: Link;
  readonly leaseMs: number;
  tell(order: Order): void;
  /** How it stands; undefined where it does not say so in time. */
  report(): Promise<Report | undefined>;
}

export interface RevocationStack extends AsyncDisposable {
  readonly replicas: readonly RevocationReplica[];
  readonly mongodb: ThreeMembers;
  /** The service's database. */
  readonly db: Db;
  /** Resolves once the memory of these replicas may answer, or rejects after half a minute. */
  holding(replicas?: readonly RevocationReplica[]): Promise<void>;
}

export interface RevocationStackOptions {
  /** The failing service. */
  readonly program: Program;
  /** By the replica, and so how many there are. Absent: as the service has it. */
  readonly leaseMs: readonly (number | undefined)[];
  /** Goes on when the stack is gone; the replicas have a database of their own there. Absent: started for this stack. */
  readonly mongodb?: ThreeMembers;
  /** Added to the MongoDB URI of the replica with this index. */
  readonly uriOptions?: ReadonlyMap<number, string>;
}

const LEASE_MS_DEFAULT = 15_000;
const HOLDING_MS_MAX = 30_000;

export async function startRevocationStack({
  program,
  leaseMs,
  mongodb: shared,
  uriOptions,
}: RevocationStackOptions): Promise<RevocationStack> {
  const started: AsyncDisposable[] = [];
  const use = <T extends AsyncDisposable>(one: T): T => {
    started.push(one);
    return one;
  };
  const dispose = async () => {
    for (const one of started.splice(0).reverse()) await one[Symbol.asyncDispose]();
  };
  try {
    const mongodb = shared ?? use(await startThreeMembers());
    const client = use(new MongoClient(mongodb.uri, { heartbeatFrequencyMS: 1000 }));
    const database = `keyreeve-${randomUUID()}`;
    const startOne = async (ms: number | undefined, index: number): Promise<RevocationReplica> => {
      const proxies: { readonly port: number; readonly proxy: TcpProxy }[] = [];
      for (const { address, proxy } of mongodb.members) {
        proxies.push({ port: portOf(address), proxy: use(await startProxy(proxy.target)) });
      }
      const settings: ServiceSettings = {
        KEYREEVE_MONGODB_URI: `${mongodb.uri.replace('/?', `/${database}?`)}${uriOptions?.get(index) ?? ''}`,
        KEYREEVE_KEYSPACES: KEYSPACES,
        ...(ms !== undefined && { KEYREEVE_LEASE_MS: `${ms}` }),
      };
      const detours = proxies.map(({ port, proxy }) => `--detour=${port}=${proxy.port}`);
      const service = use(await startService(settings, { program: [program.path, '--no-sink', ...detours] }));
      const link = linkOver(proxies.map(({ proxy }) => proxy));
      return replicaOf(index, service, link, ms ?? LEASE_MS_DEFAULT);
    };
    const [first, ...others] = leaseMs;
    // The first prepares the database; the others have nothing left to prepare, and start side by side.
    const replicas = [await startOne(first, 0)];
    replicas.push(...(await Promise.all(others.map((ms, at) => startOne(ms, at + 1)))));
    return {
      replicas,
      mongodb,
      db: client.db(database),
      async holding(of = replicas) {
        const endMs = performance.now() + HOLDING_MS_MAX;
        for (const replica of of) {
          while ((await replica.report())?.holds !== true) {
            if (performance.now() > endMs) throw new Error(`replica ${replica.index} does not come to hold a lease`);
            await sleep(LOOK_MS);
          }
        }
      },
      [Symbol.asyncDispose]: dispose,
    };
  } catch (error) {
    await dispose();
    throw error;
  }
}

function replicaOf(index: number, service: Service, link: Link, leaseMs: number): RevocationReplica {
  let reports = 0;
  const tell = (order: Order) => service.tell(JSON.stringify(order));
  return {
    index,
    service,
    link,
    leaseMs,
    tell,
    async report() {
      const number = (reports += 1);
      tell({ order: 'report', report: number });
      const endMs = performance.now() + REPORT_MS_MAX;
      while (performance.now() < endMs) {
        const line = new RegExp(`^\\{"report":${number},.*$`, 'm').exec(service.output())?.[0];
        if (line !== undefined) return JSON.parse(line) as Report;
        await sleep(LOOK_MS);
      }
      return undefined;
    },
  };
}

function linkOver(proxies: readonly TcpProxy[]): Link {
  const each = (hurt: (proxy: TcpProxy) => void) => () => proxies.forEach(hurt);
  return {
    delay: (ms, directions) => each((proxy) => proxy.delay(ms, directions))(),
    swallow: (directions) => each((proxy) => proxy.drop(directions))(),
    sever: each((proxy) => proxy.sever()),
    delayStream: (ms = Number.POSITIVE_INFINITY) => each((proxy) => proxy.delayAnswers(ms, isOfStream))(),
    nextOfStream: () => Promise.race(proxies.map((proxy) => proxy.nextAnswer(isOfStream))),
    mend: each((proxy) => proxy.mend()),
  };
}

function isOfStream(request: Buffer): boolean {
  return request.includes('getMore') || request.includes('$changeStream');
}

function portOf(address: string): number {
  return Number(address.slice(address.lastIndexOf(':') + 1));
}
