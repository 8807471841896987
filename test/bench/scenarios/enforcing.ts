/** From a call of RevokeKey to the answer that no replica accepts the key any more. */
import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';

import type { KeyServiceClient, VerifyKeyResponse } from '../../../src/gen/keyreeve/v1/key_service.js';
import { Decision } from '../../../src/gen/keyreeve/v1/verification.js';
import { call } from '../../support/call.js';
import { type Service, type ServiceSettings, startService } from '../../support/service.js';
import type { Bench, Scenario } from '../bench.js';
import { verifyOne } from '../grpc-target.js';
import { createKey, type CreatedKey, revokeKey, toVerifyRequest } from '../keys.js';
import { type Goal, median, type Section } from '../measured.js';
import { Opened } from '../opened.js';
import { inDatabase, startReplicaSet } from '../replica-set.js';
import { quantile } from '../report.js';

const REPLICAS = [1, 3, 6];
/** Of the seconds that a round lasts elsewhere. */
const REVOCATIONS_PER_SECOND = 30;
const CREATES_PER_SECOND = 50;
const ORGANIZATIONS = 60;
const GOAL_P99_MS = 100;
const GOAL_MAX_MS = 1000;

export const enforcing: Scenario = {
  name: 'enforcing',
  what: 'RevokeKey until it is in force on 1, 3 and 6 replicas, idle and while 50 keys a second are created',
  measure,
};

interface Case {
  readonly what: string;
  readonly replicas: number;
  readonly creating: boolean;
  readonly settings: ServiceSettings;
  /** Of each revocation of all rounds. */
  readonly ms: number[];
  /** Keys created a second meanwhile, in each round. */
  readonly created: number[];
}

async function measure(bench: Bench): Promise<Section> {
  await bench.cores.pin(process.pid, 'anywhere');
  await using set = await startReplicaSet();
  const cases: Case[] = [];
  for (const creating of [false, true]) {
    const loaded = creating ? ', keys being created' : '';
    cases.push({ what: `SQLite, 1 process${loaded}`, replicas: 1, creating, settings: {}, ms: [], created: [] });
    for (const replicas of REPLICAS) {
      const what = `MongoDB, ${replicas} ${replicas === 1 ? 'replica' : 'replicas'}${loaded}`;
      const settings = { KEYREEVE_MONGODB_URI: inDatabase(set.uri, `enforcing_${replicas}_${creating ? 'b' : 'a'}`) };
      cases.push({ what, replicas, creating, settings, ms: [], created: [] });
    }
  }
  for (let round = 1; round <= bench.rounds; round += 1) {
    bench.say(`enforcing: round ${round} of ${bench.rounds}`);
    for (const one of round % 2 === 0 ? cases : cases.toReversed())
      await revokeSeveral(one, Math.ceil(bench.seconds * REVOCATIONS_PER_SECOND));
  }
  await bench.cores.pin(process.pid, 'load');
  return toSection(cases);
}

async function revokeSeveral({ replicas, creating, settings, ms, created }: Case, count: number): Promise<void> {
  await using stack = new Opened();
  const services: Service[] = [];
  for (let at = 0; at < replicas; at += 1) services.push(stack.use(await startService(settings)));
  // Killed, they would have the first revocation of the next round wait for their leases.
  stack.use({
    async [Symbol.asyncDispose]() {
      await Promise.all(services.map((service) => service.stop()));
    },
  });
  const clients = services.map(({ keys }) => keys);
  const creator = creating ? stack.use(startCreating(clients)) : undefined;
  for (let at = 0; at < count; at += 1) {
    const key = await createKey(inTurn(clients, at + 1), `acme-${randomUUID()}`);
    // Each replica has it in memory.
    for (const client of clients) await verifyOne(client, key.token);
    const beginMs = performance.now();
    await enforce(inTurn(clients, at), key);
    ms.push(performance.now() - beginMs);
    for (const client of clients) await expectRevoked(client, key);
  }
  if (creator) created.push(creator.perSecond());
}

function inTurn(clients: readonly KeyServiceClient[], at: number): KeyServiceClient {
  const client = clients[at % clients.length];
  if (!client) throw new Error('there is no replica');
  return client;
}

async function enforce(client: KeyServiceClient, key: CreatedKey): Promise<void> {
  // Not in force when the answer had to be given: asked again, it waits again.
  while (!(await revokeKey(client, key))) await delay(1);
}

async function expectRevoked(client: KeyServiceClient, { token }: CreatedKey): Promise<void> {
  const { decision } = await call<VerifyKeyResponse>((done) => client.verifyKey(toVerifyRequest(token), done));
  if (decision !== Decision.REVOKED) throw new Error(`revoked and enforced, the key is ${Decision[decision]}`);
}

interface Creating extends AsyncDisposable {
  /** Keys that were created, each second so far. */
  perSecond(): number;
}

/** Of other organizations, each by one replica, at even intervals until it is disposed. */
function startCreating(clients: readonly KeyServiceClient[]): Creating {
  const over = new AbortController();
  const running: Promise<void>[] = [];
  const beginMs = performance.now();
  let created = 0;
  async function create(at: number): Promise<void> {
    // What a machine cannot keep up with is missing from the figure.
    await createKey(inTurn(clients, at % ORGANIZATIONS), `busy-${at % ORGANIZATIONS}`).then(
      () => (created += 1),
      () => undefined,
    );
  }
  async function createSteadily(): Promise<void> {
    for (let at = 0; !over.signal.aborted; at += 1) {
      running.push(create(at));
      const nextMs = beginMs + ((at + 1) * 1000) / CREATES_PER_SECOND - performance.now();
      await delay(nextMs, undefined, { signal: over.signal }).catch(() => undefined);
    }
  }
  const creating = createSteadily();
  return {
    perSecond: () => (created * 1000) / (performance.now() - beginMs),
    async [Symbol.asyncDispose]() {
      over.abort();
      await creating;
      await Promise.all(running);
    },
  };
}

function toSection(cases: readonly Case[]): Section {
  const three = cases.find(({ replicas, creating }) => replicas === 3 && !creating)?.ms ?? [];
  return {
    title: 'From RevokeKey to enforced',
    text:
      'One revocation at a time, of a key that all replicas have in memory, by one replica after the other, until ' +
      '`enforcement.complete` is answered; then each replica is asked, and must deny. MongoDB is a replica set of three ' +
      'members with the election settings that leases need, on the same machine, no process of this table pinned to a ' +
      'core; the audit goes to files. Where keys are created it is tried ' +
      `${CREATES_PER_SECOND} times a second, of ${ORGANIZATIONS} other organizations.`,
    head: ['what', 'creates a second', 'revocations', 'p50 ms', 'p99 ms', 'max ms'],
    rows: cases.map(({ what, ms, created }) => [
      what,
      created.length > 0 ? median(created).toFixed(0) : '',
      `${ms.length}`,
      ...[0.5, 0.99, 1].map((share) => quantile(ms, share).toFixed(1)),
    ]),
    goals: [within('p99', 0.99, GOAL_P99_MS, three), within('max', 1, GOAL_MAX_MS, three)],
    bars: [],
  };
}

function within(what: string, share: number, goalMs: number, ms: readonly number[]): Goal {
  const reachedMs = quantile(ms, share);
  return {
    what: `RevokeKey until enforced, 3 replicas: ${what}`,
    goal: `at most ${goalMs} ms`,
    reached: `${reachedMs.toFixed(1)} ms`,
    met: reachedMs <= goalMs,
  };
}
