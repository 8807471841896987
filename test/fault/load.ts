/** What clients do while faults are made: everything that the checker can judge, all the time. */
import { setTimeout as sleep } from 'node:timers/promises';

import type { Answers, Outcome } from '../support/history.js';
import type { Clients } from './clients.js';
import type { Random } from './random.js';

export const KEY_LIMIT = 5;
const OPEN = ['open/red', 'open/green', 'open/blue'];
const LIMITED = 'limited/one';
const RATED = 'rated/one';
const SUSPENDED = 'open/now-and-then';
export const ORGANIZATIONS: readonly string[] = [...OPEN, LIMITED, RATED, SUSPENDED];
export const KEY_LIMITS: ReadonlyMap<string, number> = new Map([[LIMITED, KEY_LIMIT]]);

const PROVISIONERS = 4;
const LIMIT_PROVISIONERS = 2;
const VERIFIERS = 2;
const REST_MS = 10;
const RETRY_MS = 100;
const SUSPENDED_KEYS = 3;
const EARLY_MS_MAX = 1000;
/** Old keys are judged at the end; while it runs a verifier looks at the newest. */
const RECENT_KEYS = 200;

interface KnownKey {
  readonly organization: string;
  readonly keyId: string;
  readonly credential: number;
}

export interface Load {
  /** How many operations were acknowledged. */
  readonly acknowledged: number;
  /** Resolves once so many more were acknowledged, or after so long. */
  advance(by: number, withinMs: number): Promise<void>;
  /** Resolves once nothing is under way. */
  stop(): Promise<void>;
}

export function startLoad(clients: Clients, random: Random): Load {
  const known: KnownKey[] = [];
  let requests = 0;
  let acknowledged = 0;
  let over = false;

  const anyReplica = (chance: Random) => chance.between(0, clients.replicas.length);
  const newRequest = () => `r${(requests += 1)}`;
  function seen<A>(outcome: Outcome<A>): Outcome<A> {
    if (outcome.kind === 'acknowledged') acknowledged += 1;
    return outcome;
  }
  function learn(organization: string, { keyId, credential }: { keyId: string; credential?: number }): void {
    if (credential !== undefined) known.push({ organization, keyId, credential });
  }
  /** The same request again, of any replica, until its outcome is known. */
  async function insist<A>(chance: Random, ask: (replica: number) => Promise<Outcome<A>>): Promise<Outcome<A>> {
    for (;;) {
      const outcome = seen(await ask(anyReplica(chance)));
      if (outcome.kind !== 'unknown' || over) return outcome;
      await sleep(RETRY_MS);
    }
  }
  async function insistOnKey(
    chance: Random,
    organization: string,
    ask: (replica: number) => Promise<Outcome<Answers['create']>>,
  ): Promise<Outcome<Answers['create']>> {
    const outcome = await insist(chance, ask);
    if (outcome.kind !== 'acknowledged') return outcome;
    learn(organization, outcome);
    // The answer that held the credential was lost: what a client does then is rotate.
    if (outcome.replayed && outcome.credential === undefined) await rotate(chance, organization, outcome.keyId);
    return outcome;
  }
  async function rotate(chance: Random, organization: string, keyId: string): Promise<void> {
    const request = newRequest();
    const outcome = await insist(chance, (replica) => clients.rotate(replica, organization, request, { keyId }));
    if (outcome.kind === 'acknowledged') learn(organization, outcome);
  }

  /** The old key goes on until the new one is rotated, or somebody ends it. */
  async function rotateWithOverlap(chance: Random, { organization, keyId, credential }: KnownKey): Promise<void> {
    const request = newRequest();
    const ask = (replica: number) => clients.rotate(replica, organization, request, { keyId, keepsOld: true });
    const outcome = await insist(chance, ask);
    if (outcome.kind !== 'acknowledged') return;
    seen(await clients.verify(anyReplica(chance), keyId, credential));
    learn(organization, outcome);
    if (chance.next() < 0.3) await revoke(chance, { organization, keyId, credential });
  }
  async function importKey(chance: Random, organization: string): Promise<void> {
    const request = newRequest();
    const item = { name: `key ${request}`, credential: clients.issueElsewhere(organization) };
    const outcome = await insist(chance, (replica) => clients.import(replica, organization, request, item));
    if (outcome.kind !== 'acknowledged') return;
    learn(organization, outcome);
    // The same key once more, as after an import that broke off.
    if (chance.next() < 0.3) seen(await clients.import(anyReplica(chance), organization, newRequest(), item));
  }

  async function create(chance: Random, organization: string): Promise<Outcome<Answers['create']>> {
    const request = newRequest();
    const name = `key ${request}`;
    const ask = (replica: number) => clients.create(replica, organization, request, name);
    const outcome = await insistOnKey(chance, organization, ask);
    if (outcome.kind === 'acknowledged' && chance.next() < 0.2) {
      seen(await ask(anyReplica(chance)));
      seen(await clients.create(anyReplica(chance), organization, request, `not ${name}`));
    }
    return outcome;
  }
  /** Two clients, or one and its impatient retry, send the same request at once. */
  async function createTwice(chance: Random, organization: string): Promise<void> {
    const request = newRequest();
    const ask = (replica: number) => clients.create(replica, organization, request, `key ${request}`);
    const first = anyReplica(chance);
    const outcomes = await Promise.all([ask(first), ask((first + 1) % clients.replicas.length)]);
    for (const outcome of outcomes.map(seen)) if (outcome.kind === 'acknowledged') learn(organization, outcome);
  }
  async function revoke(chance: Random, { organization, keyId, credential }: KnownKey): Promise<void> {
    const request = newRequest();
    const outcome = await insist(chance, (replica) => clients.revoke(replica, organization, request, keyId));
    if (outcome.kind !== 'acknowledged') return;
    // At once, of each replica: what is late shows now or never.
    const verifications = clients.replicas.map((_, replica) => clients.verify(replica, keyId, credential));
    (await Promise.all(verifications)).forEach(seen);
    if (chance.next() < 0.2) seen(await clients.revoke(anyReplica(chance), organization, newRequest(), keyId));
  }
  /** Off, and on again, with a look at each replica in between: what is late shows now or never. */
  async function switchKey(chance: Random, key: KnownKey): Promise<void> {
    const { organization, keyId, credential } = key;
    for (const off of [true, false]) {
      const request = newRequest();
      const outcome = await insist(chance, (replica) =>
        clients.updateKey(replica, organization, request, { keyId, off }),
      );
      if (outcome.kind !== 'acknowledged') return;
      const verifications = clients.replicas.map((_, replica) => clients.verify(replica, keyId, credential));
      (await Promise.all(verifications)).forEach(seen);
    }
    known.push(key);
  }
  /** A key ends while it is in use, with a look at each replica before and after. */
  async function endEarly(chance: Random): Promise<void> {
    const key = take(chance, (one) => OPEN.includes(one.organization));
    if (!key) {
      await create(chance, chance.pick(OPEN));
      return;
    }
    const { organization, keyId, credential } = key;
    const inMs = chance.between(EARLY_MS_MAX / 2, EARLY_MS_MAX);
    const end = { keyId, expireTimeMs: Date.now() + inMs, expiryMs: performance.now() + inMs };
    const request = newRequest();
    await insist(chance, (replica) => clients.endEarly(replica, organization, request, end));
    for (const atMs of [end.expiryMs - EARLY_MS_MAX / 4, end.expiryMs + EARLY_MS_MAX / 4]) {
      await sleep(Math.max(0, atMs - performance.now()));
      const verifications = clients.replicas.map((_, replica) => clients.verify(replica, keyId, credential));
      (await Promise.all(verifications)).forEach(seen);
    }
  }
  function take(chance: Random, of: (key: KnownKey) => boolean): KnownKey | undefined {
    const recent = known.map((key, at) => ({ key, at })).slice(-RECENT_KEYS);
    const candidates = recent.filter(({ key }) => of(key));
    if (candidates.length === 0) return undefined;
    const { key, at } = chance.pick(candidates);
    known.splice(at, 1);
    return key;
  }

  async function provision(chance: Random): Promise<void> {
    const dice = chance.next();
    const organization = chance.pick(OPEN);
    if (dice < 0.3) await create(chance, organization);
    else if (dice < 0.4) await createTwice(chance, organization);
    else if (dice < 0.45) await importKey(chance, organization);
    else {
      const key = take(chance, (one) => OPEN.includes(one.organization));
      if (!key) await create(chance, organization);
      else if (dice < 0.7) await revoke(chance, key);
      else if (dice < 0.83) await switchKey(chance, key);
      else if (dice < 0.9) await rotateWithOverlap(chance, key);
      else await rotate(chance, key.organization, key.keyId);
    }
  }
  async function provisionLimited(chance: Random): Promise<void> {
    const outcome = await create(chance, LIMITED);
    if (outcome.kind !== 'refused') return;
    const key = take(chance, (one) => one.organization === LIMITED);
    if (key) await revoke(chance, key);
    else await sleep(RETRY_MS);
  }
  async function suspendAndResume(chance: Random): Promise<void> {
    const keys = known.filter(({ organization }) => organization === SUSPENDED);
    if (keys.length < SUSPENDED_KEYS) {
      await create(chance, SUSPENDED);
      return;
    }
    for (const off of [true, false]) {
      const request = newRequest();
      const ask = (replica: number) => clients.updateOrganization(replica, SUSPENDED, request, off);
      if ((await insist(chance, ask)).kind !== 'acknowledged') return;
      const { keyId, credential } = chance.pick(keys);
      const verifications = clients.replicas.map((_, replica) => clients.verify(replica, keyId, credential));
      (await Promise.all(verifications)).forEach(seen);
    }
    await sleep(RETRY_MS);
  }
  async function verify(chance: Random): Promise<void> {
    const recent = known.slice(-RECENT_KEYS);
    if (recent.length === 0) return;
    const { keyId, credential } = chance.pick(recent);
    seen(await clients.verify(anyReplica(chance), keyId, credential));
  }

  /** One key, as often as its limit lets it be and more. */
  async function verifyRated(chance: Random): Promise<void> {
    const key = known.find(({ organization }) => organization === RATED);
    if (!key) await create(chance, RATED);
    else seen(await clients.verify(anyReplica(chance), key.keyId, key.credential));
  }

  async function loop(chance: Random, step: (chance: Random) => Promise<void>): Promise<void> {
    while (!over) {
      await step(chance);
      await sleep(chance.between(0, REST_MS));
    }
  }
  const steps = [
    ...Array<typeof provision>(PROVISIONERS).fill(provision),
    ...Array<typeof provision>(LIMIT_PROVISIONERS).fill(provisionLimited),
    ...Array<typeof provision>(VERIFIERS).fill(verify),
    suspendAndResume,
    endEarly,
    verifyRated,
  ];
  const loops = steps.map((step) => loop(random.fork(), step));
  return {
    get acknowledged() {
      return acknowledged;
    },
    async advance(by, withinMs) {
      const goal = acknowledged + by;
      const endMs = performance.now() + withinMs;
      while (acknowledged < goal && performance.now() < endMs) await sleep(5);
    },
    async stop() {
      over = true;
      await Promise.all(loops);
    },
  };
}
