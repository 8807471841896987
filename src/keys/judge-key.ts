import { stateOf, type VerifiableKey } from './key.js';
import type { OrganizationSettings } from './organization.js';

/** The outcomes of a verification. Of those that hold, the earliest in this list is answered, `VALID` aside. */
export const DECISIONS = [
  'VALID',
  'MALFORMED',
  'NOT_FOUND',
  'WRONG_ORGANIZATION',
  'REVOKED',
  'DISABLED',
  'EXPIRED',
  'ORGANIZATION_SUSPENDED',
  'INSUFFICIENT_SCOPE',
  'RATE_LIMITED',
] as const;
export type Decision = (typeof DECISIONS)[number];

export interface VerificationTerms {
  /** Absent: the key of any organization will do. */
  readonly organizationId?: string;
  readonly requiredScopes: readonly string[];
}

/**
 * Weighs a key that was found by its credential. Pure, and cheap: it runs on every verification. Whether a `VALID` one
 * is within its rate limit is judged after that: only then it counts.
 */
export function judgeKey(
  key: Pick<VerifiableKey, 'organizationId' | 'standing' | 'expireTime' | 'scopes'>,
  { suspended }: Pick<OrganizationSettings, 'suspended'>,
  { organizationId, requiredScopes }: VerificationTerms,
  now: Date,
): Exclude<Decision, 'RATE_LIMITED'> {
  if (organizationId !== undefined && organizationId !== key.organizationId) return 'WRONG_ORGANIZATION';
  switch (stateOf(key, now)) {
    case 'REVOKED':
      return 'REVOKED';
    case 'DISABLED':
      return 'DISABLED';
    case 'EXPIRED':
      return 'EXPIRED';
    case 'ACTIVE':
      if (suspended) return 'ORGANIZATION_SUSPENDED';
      return requiredScopes.every((scope) => key.scopes.includes(scope)) ? 'VALID' : 'INSUFFICIENT_SCOPE';
  }
}
