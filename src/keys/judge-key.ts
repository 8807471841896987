import { type Key, stateOf } from './key.js';

/** The outcome of a verification. Of those that hold, the earliest in this list is answered, `VALID` aside. */
export type Decision =
  | 'VALID'
  | 'MALFORMED'
  | 'NOT_FOUND'
  | 'WRONG_ORGANIZATION'
  | 'REVOKED'
  | 'DISABLED'
  | 'EXPIRED'
  | 'INSUFFICIENT_SCOPE';

export interface VerificationTerms {
  /** Absent: the key of any organization will do. */
  readonly organizationId?: string;
  readonly requiredScopes: readonly string[];
}

/** Weighs a key that was found by its credential. Pure, and cheap: it runs on every verification. */
export function judgeKey(key: Key, { organizationId, requiredScopes }: VerificationTerms, now: Date): Decision {
  if (organizationId !== undefined && organizationId !== key.organizationId) return 'WRONG_ORGANIZATION';
  switch (stateOf(key, now)) {
    case 'REVOKED':
      return 'REVOKED';
    case 'DISABLED':
      return 'DISABLED';
    case 'EXPIRED':
      return 'EXPIRED';
    case 'ACTIVE':
      return requiredScopes.every((scope) => key.scopes.includes(scope)) ? 'VALID' : 'INSUFFICIENT_SCOPE';
  }
}
