/** From a credential to a decision: recognise it, find the key, weigh it, count it. */
import { type Clock, Deadline } from '../keys/clock.js';
import { type LookUp, matches, type PresentedCredential, recognise } from '../keys/credential.js';
import { type Decision, judgeKey, type VerificationTerms } from '../keys/judge-key.js';
import type { Digest, Key } from '../keys/key.js';
import { cacheTtlMsOf, type Keyspace, type Plan, planOf } from '../keys/keyspace.js';
import type { OrganizationRef } from '../keys/organization.js';
import { type Peppers, versionInUse } from '../keys/pepper.js';
import type { Log } from '../log.js';
import type { FoundKey, Store } from '../store/port.js';
import { Budgets, type RateStanding } from './budgets.js';
import { DigestMoves } from './digest-moves.js';
import { LastUses } from './last-uses.js';

/** What was presented, where to look for it, and what it must be good for. */
export interface Presented {
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
  | KnownKey<Exclude<Decision, 'MALFORMED' | 'NOT_FOUND' | 'WRONG_ORGANIZATION' | 'VALID' | 'RATE_LIMITED'>>
  /** `cacheTtlMs`: for how long the answer may be kept. */
  | (KnownKey<'VALID'> & { readonly cacheTtlMs: number })
  /** `retryAfterMs`: whole, 1 or more. */
  | (KnownKey<'RATE_LIMITED'> & { readonly rateLimit: RateStanding; readonly retryAfterMs: number });

interface KnownKey<D extends Decision> {
  readonly decision: D;
  readonly key: Key;
  /** Absent: the key's plan admits any number of requests. */
  readonly rateLimit?: RateStanding;
}

/** @throws StoreFault where the store cannot tell: that is never a decision */
export type Verifier = (presented: Presented, deadline: Deadline) => Promise<Verification>;

export interface VerifierParts {
  readonly store: Store;
  readonly peppers: Peppers;
  readonly clock: Clock;
  readonly log: Log;
}

/** Disposing a verifier takes this long at most. */
const VERIFIER_STOP_MS = 2000;

/**
 * Reads the store at each call, so a decision is as fresh as the store's own answer. Disposing it writes the last uses
 * gathered; verify nothing any more by then, and dispose it before the store.
 */
export function openVerifier({ store, peppers, clock, log }: VerifierParts): Verifier & AsyncDisposable {
  const budgets = new Budgets({ store, clock });
  const uses = new LastUses({ store, clock, log });
  const moves = new DigestMoves({ store, clock, log });
  const inUse = versionInUse(peppers);

  const verify: Verifier = async (presented, deadline) => {
    const lookUps = recognise(presented.credential, presented.keyspaces, presented.named, peppers);
    if (lookUps === 'malformed') return { decision: 'MALFORMED' };
    for (const lookUp of lookUps) {
      const found = await find(store, lookUp, deadline);
      if (!found || !presented.sees(found.key)) continue;
      // The clock is read after the store: a key that expired while it was read is expired.
      const now = clock.now();
      const verification = await judge(found, lookUp.keyspace, presented.terms, now, budgets, deadline);
      if (verification.decision === 'VALID') {
        uses.note(found.key.keyId, now);
        const moved = formInUse(found.key.digest, lookUp, inUse);
        if (moved) moves.begin(found.key.keyId, found.key.digest, moved);
      }
      return verification;
    }
    return { decision: 'NOT_FOUND' };
  };

  return Object.assign(verify, {
    async [Symbol.asyncDispose]() {
      const deadline = Deadline.after(VERIFIER_STOP_MS, clock);
      await Promise.all([uses.end(deadline), moves.end(deadline)]);
    },
  });
}

/** In ascending order of the forms, one after the other: a record that moves meanwhile moves to one that is still to come. */
async function find(store: Store, lookUp: LookUp, deadline: Deadline): Promise<FoundKey | undefined> {
  for (const { bytes } of lookUp.digests) {
    const found = await store.findByDigest(lookUp.keyspace.name, bytes, deadline);
    if (found) return matches(found.key, lookUp) ? found : undefined;
  }
  return undefined;
}

/** The form to move to, where the stored one is older. One that is newer stays: another replica uses it already. */
function formInUse({ pepperVersion }: Digest, { digests }: LookUp, inUse: number): Digest | undefined {
  return pepperVersion < inUse ? digests.find((digest) => digest.pepperVersion === inUse) : undefined;
}

/** @throws Error where the organization has a plan that the keyspaces file does not know: neither a yes nor a no is safe */
async function judge(
  { key, organization }: FoundKey,
  keyspace: Keyspace,
  terms: VerificationTerms,
  now: Date,
  budgets: Budgets,
  deadline: Deadline,
): Promise<Verification> {
  const decision = judgeKey(key, organization, terms, now);
  switch (decision) {
    case 'MALFORMED':
    case 'NOT_FOUND':
    case 'WRONG_ORGANIZATION':
      return { decision };
    case 'REVOKED':
    case 'DISABLED':
    case 'EXPIRED':
    case 'ORGANIZATION_SUSPENDED':
    case 'INSUFFICIENT_SCOPE': {
      const { requestsPerMinute } = planOf(keyspace, organization);
      if (requestsPerMinute === undefined) return { decision, key };
      return { decision, key, rateLimit: await budgets.look(key.lineageId, requestsPerMinute, deadline) };
    }
    case 'VALID': {
      const plan = planOf(keyspace, organization);
      const { requestsPerMinute } = plan;
      const cacheTtlMs = keepableMs(key, keyspace, plan, now);
      if (requestsPerMinute === undefined) return { decision, key, cacheTtlMs };
      const admission = await budgets.admit(key.lineageId, requestsPerMinute, deadline);
      const { standing: rateLimit } = admission;
      if (admission.admitted) return { decision, key, rateLimit, cacheTtlMs };
      return { decision: 'RATE_LIMITED', key, rateLimit, retryAfterMs: admission.retryAfterMs };
    }
  }
}

/** Never past the key's expiry. */
function keepableMs(key: Key, keyspace: Keyspace, plan: Plan, now: Date): number {
  const ttlMs = cacheTtlMsOf(keyspace, plan);
  return key.expireTime ? Math.min(ttlMs, key.expireTime.getTime() - now.getTime()) : ttlMs;
}
