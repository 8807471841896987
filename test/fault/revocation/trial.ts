/** One run: a stack under load, faults one after the other and two at once, and what the checker says of it. */
import { setTimeout as sleep } from 'node:timers/promises';

import type { Random } from '../random.js';
import { checkRevocations, type RevocationFindings } from './checker.js';
import { AccessClients } from './clients.js';
import { type AccessFault, faultsOf } from './faults.js';
import type { Disturbance, RevocationHistory } from './history.js';
import { startAccessLoad } from './load.js';
import type { RevocationStack } from './stack.js';

/** Between two faults so many revocations are enforced. */
const ENFORCED_BETWEEN = 30;
const BETWEEN_MS_MAX = 15_000;
const SECOND_AFTER_MS_MAX = 2000;

export interface AccessTrialOptions {
  readonly random: Random;
  /** What is done, in this order: two of a pair at once, on different replicas. */
  readonly schedule: Iterable<readonly AccessFault['name'][]>;
  readonly onFault?: (names: readonly string[], enforced: number) => void;
}

export interface AccessTrialFindings extends RevocationFindings {
  readonly history: RevocationHistory;
  readonly faults: ReadonlyMap<string, number>;
  /** How many records were looked up in the store, as far as replicas that were killed have told. */
  readonly reads: number;
}

export async function runAccessTrial(
  stack: RevocationStack,
  { random, schedule, onFault }: AccessTrialOptions,
): Promise<AccessTrialFindings> {
  using clients = new AccessClients(stack.replicas.map(({ service }) => service));
  const disturbances: Disturbance[] = [];
  const made = new Map<string, number>();
  const faults = faultsOf(stack, (replica) => clients.cool(replica));
  const load = startAccessLoad(clients, random.fork(), Math.max(...stack.replicas.map(({ leaseMs }) => leaseMs)));
  let free = [...stack.replicas];

  async function make(name: string, chance: Random): Promise<void> {
    const fault = faults.find((one) => one.name === name);
    if (!fault) throw new Error(`there is no fault called: ${name}`);
    const replica = chance.pick(free);
    free = free.filter((one) => one !== replica);
    const { make, ...planned } = fault.plan(replica, chance);
    const startMs = performance.now();
    // What is asked while it goes on is judged when all is over.
    await make();
    disturbances.push({ name, ...planned, startMs, endMs: performance.now() });
    made.set(name, (made.get(name) ?? 0) + 1);
  }

  try {
    for (const names of schedule) {
      await load.advance(ENFORCED_BETWEEN, BETWEEN_MS_MAX);
      onFault?.(names, load.enforced);
      free = [...stack.replicas];
      await Promise.all(
        names.map(async (name, at) => {
          const chance = random.fork();
          if (at > 0) await sleep(chance.between(0, SECOND_AFTER_MS_MAX));
          await make(name, chance);
        }),
      );
    }
    await load.advance(ENFORCED_BETWEEN, BETWEEN_MS_MAX);
  } finally {
    await load.stop();
  }
  const reports = await Promise.all(stack.replicas.map((replica) => replica.report()));
  const { takings, givings, verifications } = clients;
  const leaseMs = Math.max(...stack.replicas.map((replica) => replica.leaseMs));
  const history = { takings, givings, verifications, disturbances, leaseMs };
  return {
    ...checkRevocations(history),
    history,
    faults: made,
    reads: reports.reduce((sum, report) => sum + (report?.reads ?? 0), 0),
  };
}
