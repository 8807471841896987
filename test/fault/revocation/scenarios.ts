/** Small plays, each of which puts one part of the protocol to the test: what is late there is late every time. */
import { setTimeout as sleep } from 'node:timers/promises';

import { pause, resume } from '../../support/pause.js';
import type { ThreeMembers } from '../../support/three-members.js';
import type { Program } from '../program.js';
import { checkRevocations, type RevocationFindings } from './checker.js';
import { AccessClients, type HeldKey, type Holding } from './clients.js';
import type { Disturbance, Way } from './history.js';
import { type RevocationReplica, type RevocationStack, startRevocationStack } from './stack.js';

export type Scenario = (program: Program, mongodb: ThreeMembers) => Promise<RevocationFindings>;

const LEASE_MS = 2000;
/** Longer than any lease here makes a call wait. */
const PATIENCE_MS = 40_000;
const LOOK_MS = 20;
const WARM_MS_MAX = 20_000;

interface Stage {
  readonly stack: RevocationStack;
  readonly clients: AccessClients;
  /** The one that takes access away. */
  readonly near: RevocationReplica;
  /** The one that something happens to. */
  readonly far: RevocationReplica;
  readonly third: RevocationReplica;
  /** A key that all replicas, or these, have in their memory. */
  readonly key: (of?: readonly RevocationReplica[]) => Promise<HeldKey>;
  /** Resolves once it is enforced. */
  readonly take: (way: Way, holding: Holding) => Promise<void>;
}

interface Setting {
  readonly leaseMs?: readonly number[];
  readonly uriOptions?: ReadonlyMap<number, string>;
}

function scenario(act: (stage: Stage) => Promise<void>, setting: Setting = {}): Scenario {
  return async (program, mongodb) => {
    const { leaseMs = [LEASE_MS, LEASE_MS, LEASE_MS], ...others } = setting;
    await using stack = await startRevocationStack({ program, mongodb, leaseMs, ...others });
    using clients = new AccessClients(stack.replicas.map(({ service }) => service));
    const startMs = performance.now();
    await stack.holding();
    await act(stageOf(stack, clients));
    const { takings, givings, verifications } = clients;
    const all = stack.replicas.map(({ index }) => index);
    // It is the stale yes that is looked for here; what a replica may fail to answer, the trials judge.
    const disturbance: Disturbance = { name: '', startMs, endMs: performance.now(), keeps: 'database', replicas: all };
    const disturbances = [disturbance];
    return checkRevocations({ takings, givings, verifications, disturbances, leaseMs: Math.max(...leaseMs) });
  };
}

function stageOf(stack: RevocationStack, clients: AccessClients): Stage {
  const [near, far, third] = stack.replicas;
  if (!near || !far || !third) throw new Error('three replicas are needed');
  let names = 0;

  const create = async (): Promise<HeldKey> => {
    const created = await clients.create(near.index, 'play', `key-${(names += 1)}`);
    if (!created) throw new Error('no key was made');
    return created;
  };
  /** Until it answers without asking the store. */
  async function warm(key: HeldKey, replica: RevocationReplica): Promise<void> {
    const endMs = performance.now() + WARM_MS_MAX;
    for (;;) {
      const before = await replica.report();
      const outcome = await clients.verify(replica.index, key);
      const after = await replica.report();
      if (outcome.kind === 'decided' && before && before.reads === after?.reads) return;
      if (performance.now() > endMs) throw new Error(`replica ${replica.index} does not answer from memory`);
    }
  }

  return {
    stack,
    clients,
    near,
    far,
    third,
    async key(of = stack.replicas) {
      const key = await create();
      for (const replica of of) await warm(key, replica);
      return key;
    },
    async take(way, holding) {
      for (;;) {
        const outcome = await clients.take(way, holding, { replica: near.index, patienceMs: PATIENCE_MS });
        if (outcome.kind === 'answered' && outcome.complete) return;
        if (outcome.kind === 'refused') throw new Error(`refused: ${outcome.reason}`);
      }
    },
  };
}

/** So that a replica's document can be told from the others'. */
const OWN_LEASES: Setting = { leaseMs: [LEASE_MS, LEASE_MS + 100, LEASE_MS + 200] };

function documentsOf({ leaseMs }: RevocationReplica, { db }: RevocationStack) {
  return db.collection('replicas').find({ lease_ms: leaseMs }).toArray();
}

const CALM_ROUNDS = 5;

/** Nothing goes wrong: access is taken away in each way, and every replica is asked at once. */
export const calm = scenario(async ({ stack, clients, key, take }) => {
  const everywhere = (held: HeldKey) =>
    Promise.all(
      stack.replicas.flatMap(({ index }) => [clients.verify(index, held), clients.verifyBatch(index, [held])]),
    );
  for (let round = 0; round < CALM_ROUNDS; round += 1) {
    for (const way of ['revoke', 'revoke by name', 'rotate', 'disable', 'narrow'] as const) {
      const held = await key();
      await take(way, { keys: [held] });
      await everywhere(held);
    }
  }
  const held = await key();
  await take('suspend', { keys: [held] });
  await everywhere(held);
});

/** The stream of one replica stalls, while its writes go on. */
export const stalledStream = scenario(async ({ clients, far, key, take }) => {
  const held = await key();
  far.link.delayStream();
  await take('revoke', { keys: [held] });
  await clients.verify(far.index, held);
  far.link.mend();
});

/** The same, and it is asked by batches only. */
export const stalledStreamByBatch = scenario(async ({ clients, far, key, take }) => {
  const held = await key();
  far.link.delayStream();
  await take('revoke', { keys: [held] });
  await clients.verifyBatch(far.index, [held]);
  far.link.mend();
});

/** A replica sleeps for longer than its lease, and finds a question waiting when it wakes up. */
export const pausedBeyondLease = scenario(async ({ clients, far, key, take }) => {
  const held = await key();
  far.link.delayStream();
  await pause(far.service.pid);
  let asked: Promise<unknown>;
  try {
    await take('revoke', { keys: [held] });
    asked = clients.verify(far.index, held);
    // On its way to the one that sleeps.
    await sleep(LOOK_MS * 10);
  } finally {
    resume(far.service.pid);
  }
  await asked;
  await clients.verify(far.index, held);
  far.link.mend();
});

/** A replica is cut off, and serves on from memory as long as it may. */
export const cutOff = scenario(
  async ({ clients, far, key, take }) => {
    // One after the other: the second is asked to be taken when it is known already that the replica is silent.
    const [first, second] = [await key(), await key()];
    far.link.swallow();
    await take('revoke', { keys: [first] });
    await clients.verify(far.index, first);
    await take('revoke', { keys: [second] });
    await clients.verify(far.index, second);
    far.link.mend();
  },
  { leaseMs: [6000, 6000, 6000] },
);

/** A machine sleeps: its monotonic clock stands still meanwhile, its wall clock does not. */
export const sleepingMachine = scenario(async ({ clients, far, key, take }) => {
  const held = await key();
  far.link.delayStream();
  const ms = 3 * far.leaseMs;
  far.tell({ order: 'sleep', ms });
  const over = sleep(ms);
  await take('revoke', { keys: [held] });
  const asked = clients.verify(far.index, held);
  await over;
  await asked;
  await clients.verify(far.index, held);
  far.link.mend();
});

/** A record is read, then the key is revoked, and then what was read arrives. */
export const lateRecord = scenario(async ({ stack, clients, near, far, key, take }) => {
  for (const way of ['revoke', 'suspend'] as const) {
    const held = await key([near]);
    const slowMs = 1500;
    far.tell({ order: 'slow-reads', ms: slowMs });
    const before = (await far.report())?.reads ?? 0;
    const early = clients.verify(far.index, held);
    while (((await far.report())?.reads ?? 0) === before) await sleep(LOOK_MS);
    // The read itself is done soon.
    await sleep(slowMs / 5);
    await take(way, { keys: [held] });
    const joining = clients.verify(far.index, held);
    await early;
    await clients.verify(far.index, held);
    await joining;
    far.tell({ order: 'slow-reads', ms: 0 });
    await clients.verify(far.index, held);
  }
  await stack.holding();
});

const PONDER_MS = 8000;

/** A replica joins while a change is about to be committed, and stalls. Its lease outlasts the commit. */
export const joining = scenario(
  async ({ stack, clients, near, far, key, take }) => {
    await far.service.stop();
    const held = await key([near]);
    near.tell({ order: 'ponder', ms: PONDER_MS });
    const taken = take('revoke', { keys: [held] });
    await far.service.restart();
    await stack.holding([far]);
    const outcomes = [await clients.verify(far.index, held), await clients.verify(far.index, held)];
    far.link.delayStream();
    if (outcomes.some((outcome) => outcome.kind !== 'decided' || outcome.decision !== 'VALID')) {
      throw new Error('the replica did not join in time');
    }
    await taken;
    await clients.verify(far.index, held);
    far.link.mend();
  },
  { leaseMs: [LEASE_MS, 6 * LEASE_MS, LEASE_MS] },
);

/** A replica is cut off until the others have removed it, and joins anew. */
export const lostPlace = scenario(async ({ stack, clients, near, far, key, take }) => {
  const held = await key();
  far.link.sever();
  await take('revoke', { keys: [held] });
  while ((await documentsOf(far, stack)).length > 0) await sleep(LOOK_MS);
  far.link.mend();
  await stack.holding([near, far]);
  await clients.verify(far.index, held);
}, OWN_LEASES);

/** What happens between the loss of a replica's place and its return is told to nobody. */
export const betweenLives = scenario(async ({ stack, clients, far, key, take }) => {
  const held = await key();
  for (const { _id } of await documentsOf(far, stack)) await stack.db.collection('replicas').deleteOne({ _id });
  while ((await far.report())?.holds !== false) await sleep(LOOK_MS);
  await take('revoke', { keys: [held] });
  await stack.holding([far]);
  await clients.verify(far.index, held);
}, OWN_LEASES);

/** Whoever is told "not yet" asks again. */
export const repeated = scenario(
  async ({ clients, near, far, key }) => {
    const held = await key();
    far.link.delayStream();
    for (const patienceMs of [500, 500, 700]) {
      await clients.take('revoke', { keys: [held] }, { replica: near.index, patienceMs });
      await clients.verify(far.index, held);
    }
    far.link.mend();
  },
  { leaseMs: [6000, 6000, 6000] },
);

/** The replica that stalls has a longer lease than the one that takes access away. */
export const mixedLeases = scenario(
  async ({ clients, far, key, take }) => {
    const held = await key();
    far.link.delayStream();
    await take('revoke', { keys: [held] });
    await clients.verify(far.index, held);
    far.link.mend();
  },
  { leaseMs: [LEASE_MS, 4 * LEASE_MS, LEASE_MS] },
);

/**
 * One call waits for a replica that is gone. Another one, whose change a second replica cannot hear of, comes while it does.
 */
export const joinedRound = scenario(
  async ({ clients, near, far, third, key, take }) => {
    const [first, second] = [await key(), await key()];
    third.link.swallow();
    const waiting = take('revoke', { keys: [first] });
    // The second replica has said by then that it has heard of the first.
    await sleep(near.leaseMs / 4);
    far.link.delayStream();
    await take('revoke', { keys: [second] });
    await clients.verify(far.index, second);
    await waiting;
    far.link.mend();
    third.link.mend();
  },
  { leaseMs: [LEASE_MS, 4 * LEASE_MS, LEASE_MS] },
);

/**
 * The stream is late by less than what makes a replica open another, and stalls as soon as it has brought a renewal: that
 * counts from when it was written.
 */
export const lateStream = scenario(
  async ({ stack, clients, far, key, take }) => {
    const held = await key();
    far.link.delayStream(0.28 * far.leaseMs);
    // Until its renewals come that late.
    await sleep(far.leaseMs);
    await stack.holding([far]);
    await far.link.nextOfStream();
    far.link.delayStream();
    await take('revoke', { keys: [held] });
    await clients.verify(far.index, held);
    far.link.mend();
  },
  { leaseMs: [LEASE_MS, 15_000, LEASE_MS] },
);

/** Whatever hangs is waited for: a connection that fails would make the driver look who is primary. */
const LOOKS_SELDOM = [
  '&serverMonitoringMode=poll&heartbeatFrequencyMS=300000',
  '&socketTimeoutMS=60000&connectTimeoutMS=60000&maxPoolSize=300',
].join('');
const DEPOSED_ROUNDS = 3;
const VERIFICATIONS = 16;

/**
 * A replica that hears late of an election, because it looks seldom, asks the primary that was deposed as that wakes up;
 * a key has been revoked meanwhile.
 */
export const deposedPrimary = scenario(
  async ({ stack, clients, near, far, take }) => {
    const { mongodb } = stack;
    // It answers before it knows that it is deposed in most rounds, not in all.
    for (let round = 0; round < DEPOSED_ROUNDS; round += 1) {
      const held = await clients.create(near.index, 'play', `round-${round}`);
      if (!held) throw new Error('no key was made');
      const verifyOften = () =>
        Promise.all(Array.from({ length: VERIFICATIONS }, () => clients.verify(far.index, held)));
      await verifyOften();
      const old = await mongodb.primary();
      await old.pause();
      let asked: Promise<unknown>;
      try {
        while ((await mongodb.primary()) === old);
        await take('revoke', { keys: [held] });
        asked = verifyOften();
        // On its way to the one that sleeps.
        await sleep(500);
      } finally {
        old.resume();
      }
      await asked;
      await mongodb.whole();
    }
  },
  { uriOptions: new Map([[1, LOOKS_SELDOM]]) },
);
