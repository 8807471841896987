/** From a credential to a decision: recognise it, find the key, weigh it, count it. */
import { type Clock, Deadline } from '../keys/clock.js';
import { type LookUp, matches, type PresentedCredential, recognise } from '../keys/credential.js';
import { digestPlaceOf, type SoughtDigest } from '../keys/digest.js';
import { type Decision, judgeKey, type VerificationTerms } from '../keys/judge-key.js';
import { cacheTtlMsOf, type Keyspace, type Plan, planOf } from '../keys/keyspace.js';
import type { OrganizationRef } from '../keys/organization.js';
import { type Peppers, versionInUse } from '../keys/pepper.js';
import type { Log } from '../log.js';
import type { LeaseStanding, Store } from '../store/port.js';
import { type Admission, type BudgetCounts, Budgets, type RateStanding } from './budgets.js';
import { type DecisionCounts, DecisionTally } from './decision-tally.js';
import { DigestMoves } from './digest-moves.js';
import { LastUses } from './last-uses.js';
import { Misses } from './misses.js';
import { until } from './patience.js';
import { type CacheCounts, type KnownKey, type KnownRecord, RecordCache } from './record-cache.js';

/** What was presented, where to look for it, and what it must be good for. */
export interface Presented {
  /** Who asks, by name: what waits for the store is bounded for each. */
  readonly caller: string;
  readonly credential: PresentedCredential;
  /** The one that was named, or all that the caller may verify for. */
  readonly keyspaces: readonly Keyspace[];
  readonly named: boolean;
  /** Whether the caller may verify for an organization. A key of any other is as one that does not exist. */
  readonly sees: (organization: OrganizationRef) => boolean;
  readonly terms: VerificationTerms;
}

export type Verification =
  | { readonly decision: 'MALFORMED' | 'NOT_FOUND' | 'WRONG_ORGANIZATION' }
  | OfKey<Exclude<Decision, 'MALFORMED' | 'NOT_FOUND' | 'WRONG_ORGANIZATION' | 'VALID' | 'RATE_LIMITED'>>
  /** `cacheTtlMs`: for how long the answer may be kept. */
  | (OfKey<'VALID'> & { readonly cacheTtlMs: number })
  /** `retryAfterMs`: whole, 1 or more. */
  | (OfKey<'RATE_LIMITED'> & { readonly rateLimit: RateStanding; readonly retryAfterMs: number });

interface OfKey<D extends Decision> {
  readonly decision: D;
  readonly key: KnownKey;
  /** Absent: the key's plan admits any number of requests. */
  readonly rateLimit?: RateStanding;
}

/**
 * At once where memory holds the record and what is left of a budget, else after the store.
 * @throws StoreFault where the store cannot tell: that is never a decision
 * @throws Overloaded where too many of the caller's wait for the store
 */
export type Verifier = (presented: Presented, deadline: Deadline) => Verification | Promise<Verification>;

export interface RunningVerifier extends Verifier, AsyncDisposable {
  /** What it has done since it was opened, and how it stands. */
  figures(): VerifierFigures;
}

export interface VerifierFigures {
  /** By keyspace; by '' those of what is of no keyspace, where none was named. */
  readonly decisions: DecisionCounts;
  /** Of credentials, in memory: their key is there, it is known that there is none, or the store has to be asked. */
  readonly lookUps: { readonly hit: number; readonly absent: number; readonly unknown: number };
  readonly cache: CacheCounts & { readonly keys: number };
  /** Those that wait for the store, and those that were turned down because too many of their caller did. */
  readonly misses: { readonly waiting: number; readonly turnedDown: number };
  readonly lease: Partial<LeaseStanding> & { readonly holds: boolean };
  /** Verifications that came to no decision, each of a batch for itself. */
  readonly undecided: number;
  /** Look-ups in the store for want of a lease: those that it answered, and those that failed. */
  readonly unleased: { readonly read: number; readonly failed: number };
  readonly budgets: BudgetCounts;
  readonly lastUses: LastUses['counts'];
}

export interface VerifierParts {
  readonly store: Store;
  readonly peppers: Peppers;
  readonly clock: Clock;
  readonly log: Log;
  readonly cache?: RecordCache;
}

/** A gateway that begins anew asks for everything at once; the store answers so many within moments. */
const MISSES_MAX = 1000;
/** Disposing a verifier takes this long at most. */
const VERIFIER_STOP_MS = 2000;

/**
 * A decision is as fresh as the store's own answer. Records are kept in memory while the store tells of their changes,
 * and else read at each call. Disposing it writes the last uses gathered; verify nothing any more by then, and dispose it
 * before the store.
 */
export function openVerifier({
  store,
  peppers,
  clock,
  log,
  cache = new RecordCache({ clock }),
}: VerifierParts): RunningVerifier {
  const following = store.follow(cache);
  const budgets = new Budgets({ store, clock });
  const uses = new LastUses({ store, clock, log });
  const moves = new DigestMoves({ store, clock, log });
  const inUse = versionInUse(peppers);
  const misses = new Misses(MISSES_MAX);
  const tally = new DecisionTally();
  const lookedUp = { hit: 0, absent: 0, unknown: 0 };
  const unleased = { read: 0, failed: 0 };
  let undecided = 0;

  const verify: Verifier = (presented, deadline) => {
    const lookUps = recognise(presented.credential, presented.keyspaces, presented.named, peppers);
    if (lookUps === 'malformed') return tallied({ decision: 'MALFORMED' }, presented);
    let known: Verification | undefined;
    try {
      known = verifyNow(lookUps, presented);
    } catch (error) {
      failed(error);
    }
    if (known) return tallied(known, presented);
    return verifyFromStore(lookUps, presented, deadline).then(
      (verification) => tallied(verification, presented),
      failed,
    );
  };

  function failed(error: unknown): never {
    undecided += 1;
    throw error;
  }

  function tallied(verification: Verification, { named, keyspaces }: Presented): Verification {
    const keyspace = 'key' in verification ? verification.key.keyspace : named ? keyspaces[0]?.name : undefined;
    tally.add(keyspace ?? '', verification.decision);
    return verification;
  }

  /** Undefined where something has to be waited for. */
  function verifyNow(lookUps: readonly LookUp[], presented: Presented): Verification | undefined {
    for (const lookUp of lookUps) {
      const known = recall(lookUp);
      const found = known === undefined ? readNow(lookUp) : known;
      if (found === undefined) return undefined;
      if (found === null || !presented.sees(found.key)) continue;
      const now = clock.now();
      const weighed = weigh(found, lookUp.keyspace, presented.terms, now);
      // Asked after the record was judged, and before it counts: what was answered before this call began has been told.
      if (!following.holds()) return undefined;
      const verification = weighed.limit === undefined ? weighed.verification : countNow(weighed);
      if (!verification) return undefined;
      note(found, lookUp, verification, now);
      return verification;
    }
    return following.holds() ? { decision: 'NOT_FOUND' } : undefined;
  }

  async function verifyFromStore(
    lookUps: readonly LookUp[],
    presented: Presented,
    deadline: Deadline,
  ): Promise<Verification> {
    for (const lookUp of lookUps) {
      const found = await find(lookUp, presented.caller, deadline);
      if (!found || !presented.sees(found.key)) continue;
      // The clock is read after the store: a key that expired while it was read is expired.
      const now = clock.now();
      const weighed = weigh(found, lookUp.keyspace, presented.terms, now);
      const verification = weighed.limit === undefined ? weighed.verification : await count(weighed, deadline);
      note(found, lookUp, verification, now);
      return verification;
    }
    return { decision: 'NOT_FOUND' };
  }

  /** Null: there is no such key. Undefined: not known. */
  function recall(lookUp: LookUp): KnownRecord | null | undefined {
    let isKnown = true;
    for (const { hex } of lookUp.digests) {
      const found = cache.find(digestPlaceOf(lookUp.keyspace.name, hex));
      if (found) {
        lookedUp.hit += 1;
        return matches(found.key, lookUp) ? found : null;
      }
      if (found === undefined) isKnown = false;
    }
    lookedUp[isKnown ? 'absent' : 'unknown'] += 1;
    return isKnown ? null : undefined;
  }

  /** As `recall`, by a store that need not be waited for: it makes nobody wait, so that no bound is kept here. */
  function readNow(lookUp: LookUp): KnownRecord | null | undefined {
    if (!following.readNow || !following.holds()) return undefined;
    for (const { hex, bytes } of lookUp.digests) {
      const place = digestPlaceOf(lookUp.keyspace.name, hex);
      const known = cache.find(place);
      const found = known === undefined ? cache.fill(place, following.readNow(lookUp.keyspace.name, bytes)) : known;
      if (found) return matches(found.key, lookUp) ? found : null;
    }
    return null;
  }

  /** In ascending order of the forms, one after the other: a record that moves meanwhile moves to one that is still to come. */
  async function find(lookUp: LookUp, caller: string, deadline: Deadline): Promise<KnownRecord | undefined> {
    misses.enter(caller);
    try {
      for (const digest of lookUp.digests) {
        const found = await findByDigest(lookUp.keyspace.name, digest, deadline);
        if (found) return matches(found.key, lookUp) ? found : undefined;
      }
      return undefined;
    } finally {
      misses.leave(caller);
    }
  }

  async function findByDigest(keyspace: string, { hex, bytes }: SoughtDigest, deadline: Deadline) {
    if (following.holds()) {
      const place = digestPlaceOf(keyspace, hex);
      // The budget alone may have been missing, or another form of the digest.
      const known = cache.find(place);
      if (known !== undefined) return known ?? undefined;
      try {
        const loaded = await until(
          deadline,
          cache.load(place, () => following.read(keyspace, bytes)),
        );
        if (following.holds()) return loaded;
      } catch (error) {
        if (following.holds()) throw error;
      }
    }
    try {
      const found = await store.findByDigest(keyspace, bytes, deadline);
      unleased.read += 1;
      return found && { ...found, pepperVersion: found.key.digest.pepperVersion };
    } catch (error) {
      unleased.failed += 1;
      throw error;
    }
  }

  /** Undefined where the store has to be asked for the budget. */
  function countNow({ verification, limit }: Counted): Verification | undefined {
    const { key } = verification;
    if (verification.decision === 'VALID') {
      const admission = budgets.admitNow(key.lineageId, limit);
      return admission && admitted(verification, admission);
    }
    const rateLimit = budgets.lookNow(key.lineageId, limit);
    return rateLimit && { ...verification, rateLimit };
  }

  async function count({ verification, limit }: Counted, deadline: Deadline): Promise<Verification> {
    const { lineageId } = verification.key;
    if (verification.decision === 'VALID') {
      return admitted(verification, await budgets.admit(lineageId, limit, deadline));
    }
    return { ...verification, rateLimit: await budgets.look(lineageId, limit, deadline) };
  }

  function note({ key, pepperVersion }: KnownRecord, { digests }: LookUp, { decision }: Verification, now: Date): void {
    if (decision !== 'VALID') return;
    uses.note(key.keyId, now);
    // One that is newer stays: another replica uses it already.
    if (pepperVersion >= inUse) return;
    const [from, to] = [pepperVersion, inUse].map((version) => digests.find((one) => one.pepperVersion === version));
    if (from && to) moves.begin(key.keyId, from, to);
  }

  return Object.assign(verify, {
    figures: () => ({
      decisions: tally.counts,
      lookUps: lookedUp,
      cache: { ...cache.counts, keys: cache.size },
      misses: { waiting: misses.waiting, turnedDown: misses.turnedDown },
      lease: { ...following.lease?.(), holds: following.holds() },
      undecided,
      unleased,
      budgets: budgets.counts,
      lastUses: uses.counts,
    }),
    async [Symbol.asyncDispose]() {
      const deadline = Deadline.after(VERIFIER_STOP_MS, clock);
      await Promise.all([uses.end(deadline), moves.end(deadline), following[Symbol.asyncDispose]()]);
    },
  });
}

/** What is decided but for the budget. */
type Weighed = { readonly verification: Verification; readonly limit?: undefined } | Counted;

interface Counted {
  readonly verification: Weighable;
  /** Requests a minute. */
  readonly limit: number;
}

type Weighable = Exclude<Extract<Verification, { key: unknown }>, { decision: 'RATE_LIMITED' }>;

/** @throws Error where the organization has a plan that the keyspaces file does not know: neither a yes nor a no is safe */
function weigh({ key, organization }: KnownRecord, keyspace: Keyspace, terms: VerificationTerms, now: Date): Weighed {
  const decision = judgeKey(key, organization, terms, now);
  switch (decision) {
    case 'MALFORMED':
    case 'NOT_FOUND':
    case 'WRONG_ORGANIZATION':
      return { verification: { decision } };
    case 'REVOKED':
    case 'DISABLED':
    case 'EXPIRED':
    case 'ORGANIZATION_SUSPENDED':
    case 'INSUFFICIENT_SCOPE': {
      const { requestsPerMinute: limit } = planOf(keyspace, organization);
      return limit === undefined ? { verification: { decision, key } } : { verification: { decision, key }, limit };
    }
    case 'VALID': {
      const plan = planOf(keyspace, organization);
      const { requestsPerMinute: limit } = plan;
      const verification = { decision, key, cacheTtlMs: keepableMs(key, keyspace, plan, now) };
      return limit === undefined ? { verification } : { verification, limit };
    }
  }
}

function admitted(valid: Extract<Weighable, { decision: 'VALID' }>, admission: Admission): Verification {
  const { standing: rateLimit } = admission;
  if (admission.admitted) return { ...valid, rateLimit };
  return { decision: 'RATE_LIMITED', key: valid.key, rateLimit, retryAfterMs: admission.retryAfterMs };
}

/** Never past the key's expiry. */
function keepableMs(key: KnownKey, keyspace: Keyspace, plan: Plan, now: Date): number {
  const ttlMs = cacheTtlMsOf(keyspace, plan);
  return key.expireTime ? Math.min(ttlMs, key.expireTime.getTime() - now.getTime()) : ttlMs;
}
