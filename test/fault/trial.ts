/** One run: a stack under load, faults one after the other, and what the checker says of it. */
import { setTimeout as sleep } from 'node:timers/promises';

import { History } from '../support/history.js';
import { check, type Evidence, type Findings } from './checker.js';
import { Clients } from './clients.js';
import { KEY_LIMITS, ORGANIZATIONS, startLoad } from './load.js';
import type { Random } from './random.js';
import { CLOCK_SET, type Fault, type Stack } from './stack.js';

/** Between two faults so many operations succeed: the service has to recover, and the load to go on. */
const OPERATIONS_BETWEEN = 30;
/** A service with a bug may never recover: then the next fault comes nevertheless. */
const BETWEEN_MS_MAX = 10_000;
const PUBLISHED_MS_MAX = 60_000;
const LOOK_MS = 500;

export interface TrialOptions {
  readonly random: Random;
  readonly faults: Iterable<Fault>;
  /** No more faults once so many processes were killed. Absent: all faults. */
  readonly killsMax?: number;
  /** Told before each fault, with how many processes were killed until then. */
  readonly onFault?: (fault: Fault, kills: number) => void;
  /** How long the last events may take to be published; else they count as missing. */
  readonly publishedMsMax?: number;
  /** Where the history is written as it happens. */
  readonly historyPath?: string;
}

export interface TrialFindings extends Findings {
  /** How many of each were made. */
  readonly faults: ReadonlyMap<string, number>;
  /** How many processes ended by SIGKILL. */
  readonly kills: number;
}

export async function runTrial(stack: Stack, options: TrialOptions): Promise<TrialFindings> {
  const { random, onFault, historyPath, killsMax = Number.POSITIVE_INFINITY } = options;
  const history = new History(historyPath);
  using clients = new Clients(stack.replicas, history);
  const load = startLoad(clients, random.fork());
  const faults = new Map<string, number>();
  let kills = 0;
  try {
    for (const fault of options.faults) {
      await load.advance(OPERATIONS_BETWEEN, BETWEEN_MS_MAX);
      onFault?.(fault, kills);
      kills += await fault.make(random.fork());
      faults.set(fault.name, (faults.get(fault.name) ?? 0) + 1);
      if (kills >= killsMax) break;
    }
    await load.advance(OPERATIONS_BETWEEN, BETWEEN_MS_MAX);
  } finally {
    await load.stop();
  }
  await stack.ensureUp();
  const published = await publishedWhole(stack, clients, options.publishedMsMax ?? PUBLISHED_MS_MAX);
  const stored = await clients.readStored(ORGANIZATIONS);
  const evidence: Evidence = {
    history: history.operations,
    stored,
    published,
    keyLimits: KEY_LIMITS,
    clockWasSet: faults.has(CLOCK_SET),
    ...(stack.leaseMs !== undefined && { givenBackWithinMs: stack.leaseMs }),
    defects: stack.defects(),
  };
  return { ...(await check(evidence)), faults, kills };
}

/** What was published, once everything is, or nothing more comes. */
async function publishedWhole(stack: Stack, clients: Clients, withinMs: number): Promise<Evidence['published']> {
  const endMs = performance.now() + withinMs;
  const heads = [...(await clients.readHeads(ORGANIZATIONS)).values()].filter(({ sequence }) => sequence > 0);
  for (;;) {
    try {
      const published = await stack.published();
      const arrived = heads.every(({ hash }) => published.some(({ text }) => text.includes(`"hash":"${hash}"`)));
      if (arrived || performance.now() > endMs) return published;
    } catch (error) {
      // Just after a fault the topic cannot always be read.
      if (performance.now() > endMs) throw error;
    }
    await sleep(LOOK_MS);
  }
}
