/** From a credential to a decision: recognise it, find the key, weigh it. */
import type { Clock, Deadline } from '../keys/clock.js';
import { type LookUp, matches, type PresentedCredential, recognise } from '../keys/credential.js';
import { type Decision, judgeKey, type VerificationTerms } from '../keys/judge-key.js';
import type { Key } from '../keys/key.js';
import { cacheTtlMsOf, type Keyspace, type Plan, planOf } from '../keys/keyspace.js';
import type { OrganizationRef } from '../keys/organization.js';
import type { Store } from '../store/port.js';

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
  | {
      readonly decision: Exclude<Decision, 'MALFORMED' | 'NOT_FOUND' | 'WRONG_ORGANIZATION'>;
      readonly key: Key;
      /** Verifications of the key's lineage that its plan admits in a minute. Absent: any number. */
      readonly requestsPerMinute?: number;
      /** For how long the answer may be kept; 0 with every denial. */
      readonly cacheTtlMs: number;
    };

/** @throws StoreFault where the store cannot tell: that is never a decision */
export type Verifier = (presented: Presented, deadline: Deadline) => Promise<Verification>;

/** Reads the store at each call, so a decision is as fresh as the store's own answer. */
export function createVerifier({ store, clock }: { store: Store; clock: Clock }): Verifier {
  return async (presented, deadline) => {
    const lookUps = recognise(presented.credential, presented.keyspaces, presented.named);
    if (lookUps === 'malformed') return { decision: 'MALFORMED' };
    for (const lookUp of lookUps) {
      const key = await find(store, lookUp, deadline);
      // The clock is read after the store: a key that expired while it was read is expired.
      if (key && presented.sees(key)) return judge(key, lookUp.keyspace, presented.terms, clock.now());
    }
    return { decision: 'NOT_FOUND' };
  };
}

async function find(store: Store, lookUp: LookUp, deadline: Deadline): Promise<Key | undefined> {
  const key = await store.findByDigest(lookUp.keyspace.name, lookUp.digest.bytes, deadline);
  return key && matches(key, lookUp) ? key : undefined;
}

function judge(key: Key, keyspace: Keyspace, terms: VerificationTerms, now: Date): Verification {
  const decision = judgeKey(key, terms, now);
  switch (decision) {
    case 'MALFORMED':
    case 'NOT_FOUND':
    case 'WRONG_ORGANIZATION':
      return { decision };
    case 'REVOKED':
    case 'DISABLED':
    case 'EXPIRED':
    case 'INSUFFICIENT_SCOPE':
    case 'VALID': {
      // No call gives an organization a plan of its own, so the keyspace's default one holds for all.
      const plan = planOf(keyspace, {});
      const { requestsPerMinute } = plan;
      return {
        decision,
        key,
        ...(requestsPerMinute !== undefined && { requestsPerMinute }),
        cacheTtlMs: decision === 'VALID' ? keepableMs(key, keyspace, plan, now) : 0,
      };
    }
  }
}

/** Never past the key's expiry. */
function keepableMs(key: Key, keyspace: Keyspace, plan: Plan, now: Date): number {
  const ttlMs = cacheTtlMsOf(keyspace, plan);
  return key.expireTime ? Math.min(ttlMs, key.expireTime.getTime() - now.getTime()) : ttlMs;
}
