/** What clients do while faults are made: access is taken away all the time, and looked at before, meanwhile and after. */
import { setTimeout as sleep } from 'node:timers/promises';

import type { Random } from '../random.js';
import type { AccessClients, HeldKey, Holding } from './clients.js';
import type { TakingOutcome, Way } from './history.js';

/** A change every so often, so that whatever loses some of them shows it. */
const TAKE_EVERY_MS = 55;
const READY_MAX = 80;
const MAKERS = 8;
/** Many, so that replicas seldom meet in one: they would wait for each other. */
const ORGANIZATIONS = Array.from({ length: 200 }, (_, at) => `open-${at}`);
const SUSPENDERS = 2;
const SUSPENDED_KEYS = 3;
const UNTOUCHED_KEYS = 8;
/** Loops, for each replica: one that hangs keeps nobody from asking another. */
const VERIFIERS = 2;
const BATCH = 20;
const RECENT = 300;
const REST_MS = 30;
const BATCH_REST_MS = 150;
const RETRY_MS = 100;
const SHORT_PATIENCE_MS = [30, 400] as const;
const SHORTEN_MS = 700;
/** Beside the longest that enforcement waits: commits, and a machine that is busy. */
const PATIENCE_BEYOND_MS = 25_000;

const WAYS: readonly (readonly [Way, number])[] = [
  ['disable', 0.4],
  ['revoke', 0.25],
  ['revoke by name', 0.1],
  ['rotate', 0.1],
  ['narrow', 0.08],
  ['shorten', 0.07],
];

export interface AccessLoad {
  /** How many times access was taken away and that was told to be enforced. */
  readonly enforced: number;
  /** Resolves once so many more were, or after so long. */
  advance(by: number, withinMs: number): Promise<void>;
  /** Resolves once nothing is under way, and every replica was asked about all keys once more. */
  stop(): Promise<void>;
}

/** @param leaseMsMax the longest of any replica */
export function startAccessLoad(clients: AccessClients, random: Random, leaseMsMax: number): AccessLoad {
  const replicas = clients.replicas.map((_, replica) => replica);
  // As many as wait for one lease: on a machine that is busy more would only make each later.
  const takingMax = leaseMsMax / 100;
  const patienceMs = 1.2 * leaseMsMax + PATIENCE_BEYOND_MS;
  const ready: Holding[] = [];
  const untouched: HeldKey[] = [];
  const suspended: HeldKey[] = [];
  const taken: HeldKey[] = [];
  const running = new Set<Promise<void>>();
  let names = 0;
  let requests = 0;
  let enforced = 0;
  let over = false;

  // It changes while a loop waits, which the compiler does not see.
  const isOver = () => over;
  const newName = () => `key-${(names += 1)}`;
  const newRequest = () => `r${(requests += 1)}`;

  async function everywhere(keys: readonly HeldKey[], wide = true): Promise<void> {
    await Promise.all(replicas.flatMap((replica) => keys.map((key) => clients.verify(replica, key, wide))));
  }

  async function make(chance: Random): Promise<void> {
    if (ready.length >= READY_MAX) return;
    const key = await clients.create(chance.pick(replicas), chance.pick(ORGANIZATIONS), newName());
    if (!key) return;
    const successor = chance.next() < 0.2 ? await clients.succeed(chance.pick(replicas), key) : undefined;
    const keys = successor ? [successor, key] : [key];
    // Once to bring it into memory, once from there.
    await everywhere(keys);
    await everywhere(keys);
    if (untouched.length < UNTOUCHED_KEYS) untouched.push(...keys);
    else ready.push({ keys });
  }

  function pickWay(chance: Random): Way {
    let dice = chance.next();
    for (const [way, share] of WAYS) if ((dice -= share) < 0) return way;
    return 'revoke';
  }

  /** Again and again, of any replica, until it is told to be enforced. */
  async function insist(chance: Random, way: Way, holding: Holding): Promise<boolean> {
    const request = newRequest();
    const expiring = way === 'shorten' ? { expireTime: new Date(Date.now() + SHORTEN_MS) } : {};
    for (let attempt = 0; !over || attempt === 0; attempt += 1) {
      const isShort = attempt === 0 && chance.next() < 0.15;
      const outcome: TakingOutcome = await clients.take(way, holding, {
        replica: chance.pick(replicas),
        patienceMs: isShort ? chance.between(...SHORT_PATIENCE_MS) : patienceMs,
        // A rotation without one would be another each time. Of the others the repeat is to be a call of its own as often.
        ...((way === 'rotate' || chance.next() < 0.5) && { request }),
        ...expiring,
      });
      if (outcome.kind === 'answered' && outcome.complete) {
        enforced += 1;
        return true;
      }
      if (outcome.kind === 'refused') return false;
      if (outcome.kind === 'unknown') await sleep(RETRY_MS);
    }
    return false;
  }

  async function take(chance: Random, holding: Holding): Promise<void> {
    const way = pickWay(chance);
    const isEnforced = await insist(chance, way, holding);
    taken.push(...holding.keys);
    if (!isEnforced) return;
    // At once, of each replica: what is late shows now or never.
    await Promise.all([
      everywhere(holding.keys),
      ...(way === 'narrow' ? [everywhere(holding.keys, false)] : []),
      clients.verifyBatch(chance.pick(replicas), [...holding.keys, ...taken.slice(-BATCH)]),
    ]);
    if (way === 'shorten') {
      await sleep(SHORTEN_MS);
      await everywhere(holding.keys);
    }
    if (way === 'revoke' && chance.next() < 0.2) {
      await clients.take(way, holding, { replica: chance.pick(replicas), patienceMs });
      await everywhere(holding.keys);
    }
    // Once more: it is in every memory already.
    if (way === 'disable' && (await clients.giveBack('disable', holding, chance.pick(replicas)))) ready.push(holding);
  }

  async function takeOften(chance: Random): Promise<void> {
    while (!over) {
      await sleep(TAKE_EVERY_MS);
      if (isOver() || running.size >= takingMax || ready.length === 0) continue;
      const [holding] = ready.splice(chance.between(0, ready.length), 1);
      if (!holding) continue;
      const taking = take(chance.fork(), holding).finally(() => running.delete(taking));
      running.add(taking);
    }
  }

  /** An organization of its own for as long as it is known what became of it. */
  async function suspendAndResume(chance: Random): Promise<void> {
    const organizationId = `suspended-${newName()}`;
    const keys: HeldKey[] = [];
    while (keys.length < SUSPENDED_KEYS && !over) {
      const key = await clients.create(chance.pick(replicas), organizationId, newName());
      if (key) keys.push(key);
    }
    suspended.push(...keys);
    const holding = { keys };
    while (!over && keys.length > 0) {
      await everywhere(keys);
      if (!(await insist(chance, 'suspend', holding))) return;
      await everywhere(keys);
      await clients.verifyBatch(chance.pick(replicas), keys);
      if (!(await clients.giveBack('suspend', holding, chance.pick(replicas)))) return;
      await sleep(chance.between(0, BATCH_REST_MS));
    }
  }

  function pickKeys(chance: Random, count: number): HeldKey[] {
    const live = ready.slice(-count).flatMap(({ keys }) => keys);
    const gone = taken.slice(-RECENT);
    const from = [live, gone, gone, untouched, suspended].filter((keys) => keys.length > 0);
    if (from.length === 0) return [];
    return Array.from({ length: count }, () => chance.pick(chance.pick(from)));
  }
  async function verify(chance: Random, replica: number): Promise<void> {
    const [key] = pickKeys(chance, 1);
    if (!key) return;
    const { kind } = await clients.verify(replica, key, chance.next() < 0.8);
    if (kind === 'failed') await sleep(RETRY_MS);
  }
  async function verifyMany(chance: Random, replica: number): Promise<void> {
    const keys = pickKeys(chance, BATCH);
    if (keys.length > 0) await clients.verifyBatch(replica, keys);
    await sleep(BATCH_REST_MS);
  }

  async function loop(chance: Random, step: (chance: Random) => Promise<void>): Promise<void> {
    while (!over) {
      await step(chance);
      await sleep(chance.between(0, REST_MS));
    }
  }
  const loops = [
    ...Array.from({ length: MAKERS }, () => loop(random.fork(), make)),
    ...Array.from({ length: SUSPENDERS }, () => loop(random.fork(), suspendAndResume)),
    ...replicas.flatMap((replica) => [
      ...Array.from({ length: VERIFIERS }, () => loop(random.fork(), (chance) => verify(chance, replica))),
      loop(random.fork(), (chance) => verifyMany(chance, replica)),
    ]),
    takeOften(random.fork()),
  ];
  return {
    get enforced() {
      return enforced;
    },
    async advance(by, withinMs) {
      const goal = enforced + by;
      const endMs = performance.now() + withinMs;
      while (enforced < goal && performance.now() < endMs) await sleep(5);
    },
    async stop() {
      over = true;
      await Promise.all(loops);
      await Promise.all(running);
      // Whatever was missed is still in memory.
      const all = [...taken, ...untouched, ...suspended, ...ready.flatMap(({ keys }) => keys)];
      for (let at = 0; at < all.length; at += BATCH) {
        await Promise.all(replicas.map((replica) => clients.verifyBatch(replica, all.slice(at, at + BATCH))));
      }
    },
  };
}
