/** What is done to three replicas and their database while access is taken away. */
import { setTimeout as sleep } from 'node:timers/promises';

import { pause, resume } from '../../support/pause.js';
import type { Random } from '../random.js';
import type { Disturbance } from './history.js';
import type { RevocationReplica, RevocationStack } from './stack.js';

/** One that is about to be made. */
export interface Planned extends Pick<Disturbance, 'keeps' | 'wallClocks'> {
  readonly replicas: readonly number[];
  /** Resolves once all is put right. */
  readonly make: () => Promise<void>;
}

export interface AccessFault {
  readonly name: string;
  /** `set`: concerns all replicas, through their database. */
  readonly of: 'replica' | 'set';
  readonly plan: (replica: RevocationReplica, random: Random) => Planned;
}

/** Told when a replica begins anew, or forgets: nothing is in its memory any more. */
type Cooled = (replica: number) => void;

const HOUR_MS = 3_600_000;
const SET_PAUSE_MS = 1500;
const COLD_READS_MS = 1500;

export function faultsOf(stack: RevocationStack, cooled: Cooled): readonly AccessFault[] {
  return [
    ...processFaults(cooled),
    ...clockFaults(),
    ...networkFaults(),
    ...streamFaults(stack, cooled),
    ...setFaults(stack),
  ];
}

type Hurt = (replica: RevocationReplica, random: Random) => Promise<void>;

function ofReplica(
  name: string,
  keeps: Planned['keeps'],
  hurt: Hurt,
  more: Pick<Planned, 'wallClocks'> = {},
): AccessFault {
  return {
    name,
    of: 'replica',
    plan: (replica, random) => ({
      keeps,
      replicas: [replica.index],
      ...more,
      make: () => hurt(replica, random),
    }),
  };
}

function processFaults(cooled: Cooled): AccessFault[] {
  const stopFor = async ({ service }: RevocationReplica, ms: number) => {
    await pause(service.pid);
    await sleep(ms);
    resume(service.pid);
  };
  return [
    ofReplica('a replica paused for longer than its lease', 'process', (replica, random) =>
      stopFor(replica, replica.leaseMs * (1.3 + 0.5 * random.next())),
    ),
    ofReplica('a replica paused for less than its lease', 'process', (replica, random) =>
      stopFor(replica, replica.leaseMs * (0.2 + 0.7 * random.next())),
    ),
    ofReplica('a replica held up between its decision and its answer', 'process', async (replica) => {
      const ms = 1.5 * replica.leaseMs;
      replica.tell({ order: 'hesitate', ms });
      await sleep(ms);
      // Or else it would do so later, when nobody expects it any more.
      replica.tell({ order: 'hesitate', ms: 0 });
    }),
    ofReplica('a replica on a machine that sleeps', 'process', async (replica) => {
      const ms = 1.5 * replica.leaseMs;
      replica.tell({ order: 'sleep', ms });
      await sleep(ms);
    }),
    ofReplica('a replica killed and started anew', 'process', async ({ service, index }) => {
      await service.kill();
      cooled(index);
      await service.restart();
    }),
    ofReplica('a replica killed and missing for a while', 'process', async ({ service, index, leaseMs }, random) => {
      await service.kill();
      await sleep(random.between(0, 2 * leaseMs));
      cooled(index);
      await service.restart();
    }),
    ofReplica('a replica stopped and started anew', 'process', async ({ service, index }) => {
      await service.stop();
      cooled(index);
      await service.restart();
    }),
  ];
}

function clockFaults(): AccessFault[] {
  const wrong = { wallClocks: true };
  const runFor: (offsetMs: readonly number[], rate: number) => Hurt = (offsets, rate) => async (replica) => {
    for (const offsetMs of offsets) {
      replica.tell({ order: 'clock', offsetMs, rate });
      await sleep(replica.leaseMs);
    }
    replica.tell({ order: 'clock', offsetMs: 0 });
    // It answers in the order in which it was told: by then its clock is right.
    await replica.report();
  };
  return [
    ofReplica('a monotonic clock 1 % fast', 'nothing', runFor([0, 0], 1.01)),
    ofReplica('a monotonic clock 1 % slow', 'nothing', runFor([0, 0], 0.99)),
    ofReplica('a wall clock that jumps forward and back', 'nothing', runFor([HOUR_MS, -HOUR_MS], 1), wrong),
  ];
}

function networkFaults(): AccessFault[] {
  const cutOff = (name: string, hurt: (replica: RevocationReplica, random: Random) => void) =>
    ofReplica(name, 'database', async (replica, random) => {
      hurt(replica, random);
      await sleep(replica.leaseMs * (0.5 + 1.5 * random.next()));
      replica.link.mend();
    });
  return [
    cutOff('a replica cut off from MongoDB', ({ link }) => link.sever()),
    cutOff('a network that swallows both ways', ({ link }) => link.swallow(['up', 'down'])),
    cutOff('a network that swallows what a replica asks', ({ link }) => link.swallow(['up'])),
    cutOff('a network that swallows what a replica is answered', ({ link }) => link.swallow(['down'])),
    cutOff('a network that is late by seconds', ({ link }, random) => link.delay(random.between(500, 3000))),
    cutOff('a network that is late one way', ({ link }, random) =>
      link.delay(random.between(200, 3000), [random.pick(['up', 'down'])]),
    ),
  ];
}

function streamFaults({ db }: RevocationStack, cooled: Cooled): AccessFault[] {
  return [
    ofReplica('a change stream that stalls while all else goes on', 'nothing', async (replica, random) => {
      replica.link.delayStream();
      await sleep(replica.leaseMs * (0.5 + 1.5 * random.next()));
      replica.link.mend();
    }),
    ofReplica('records that are read and handed over late', 'nothing', async (replica) => {
      cooled(replica.index);
      replica.tell({ order: 'slow-reads', ms: COLD_READS_MS });
      await sleep(2 * replica.leaseMs);
      replica.tell({ order: 'slow-reads', ms: 0 });
    }),
    {
      name: 'cursors of change streams killed',
      of: 'set',
      plan: ({ leaseMs }) => ({
        keeps: 'nothing',
        replicas: [0, 1, 2],
        make: async () => {
          await killStreams(db);
          await sleep(leaseMs / 2);
        },
      }),
    },
  ];
}

/** The server's, on its primary. */
async function killStreams(db: RevocationStack['db']): Promise<void> {
  const admin = db.client.db('admin');
  const pipeline = [
    { $currentOp: { idleCursors: true, allUsers: true } },
    { $match: { 'cursor.cursorId': { $exists: true }, ns: { $regex: `^${db.databaseName}\\.` } } },
  ];
  for await (const { ns, cursor } of admin.aggregate<{ ns: string; cursor: { cursorId: unknown } }>(pipeline)) {
    await db.command({ killCursors: ns.slice(db.databaseName.length + 1), cursors: [cursor.cursorId] });
  }
}

function setFaults({ mongodb, db, replicas }: RevocationStack): AccessFault[] {
  const all = replicas.map(({ index }) => index);
  // Leases that outlast an election go on from memory.
  const keeps = Math.min(...replicas.map(({ leaseMs }) => leaseMs)) >= ELECTION_LEASE_MS ? 'cold' : 'database';
  const ofSet = (name: string, make: () => Promise<void>): AccessFault => ({
    name,
    of: 'set',
    plan: () => ({ keeps, replicas: all, make }),
  });
  return [
    ofSet("MongoDB's primary killed", async () => {
      const old = await mongodb.primary();
      await old.kill();
      await mongodb.primary();
      await old.restart();
      await mongodb.whole();
    }),
    ofSet("MongoDB's primary paused until it is deposed, and woken up", async () => {
      const old = await mongodb.primary();
      await old.pause();
      try {
        for (;;) if ((await mongodb.primary()) !== old) break;
        await sleep(SET_PAUSE_MS);
      } finally {
        old.resume();
      }
      await mongodb.whole();
    }),
    ofSet("MongoDB's primary steps down", async () => {
      await db.client
        .db('admin')
        .command({ replSetStepDown: 10, secondaryCatchUpPeriodSecs: 5 })
        // It may end the connection instead of answering.
        .catch(() => undefined);
      await mongodb.whole();
    }),
    ofSet('a secondary of MongoDB killed', async () => {
      const member = await mongodb.secondary();
      await member.kill();
      await sleep(SET_PAUSE_MS);
      await member.restart();
      await mongodb.whole();
    }),
  ];
}

const ELECTION_LEASE_MS = 12_000;
