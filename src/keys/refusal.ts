/** A request whose form or content is at fault: `field` is its path in the request, `message` the rule that it breaks. */
export interface ArgumentRefusal {
  readonly refused: ArgumentReason;
  readonly field: string;
  /** Says what is allowed. Never repeats the input, which may be a secret. */
  readonly message: string;
}

export const ARGUMENT_REASONS = [
  'KEYSPACE_REQUIRED',
  'ORGANIZATION_ID_INVALID',
  'ACTOR_REQUIRED',
  'NAME_REQUIRED',
  'NAME_INVALID',
  'TYPE_INVALID',
  'EXPIRATION_INVALID',
  'SCOPES_INVALID',
  'LABELS_INVALID',
  'SELECTOR_REQUIRED',
  'UPDATE_MASK_INVALID',
  'PAGE_TOKEN_INVALID',
  'PAGE_SIZE_INVALID',
  'REQUEST_ID_INVALID',
  'PLAN_UNKNOWN',
  'DIGEST_INVALID',
  'TEXT_INVALID',
  'OVERLAP_INVALID',
  'TOO_MANY_ITEMS',
  'ROUTE_FIELD_UNKNOWN',
] as const;
export type ArgumentReason = (typeof ARGUMENT_REASONS)[number];

/**
 * What the rules turn down. A refusal is an answer, not a fault: nothing was written, and each carries what its caller
 * needs to act on it.
 */
export type Refusal =
  | ArgumentRefusal
  | { readonly refused: 'KEYSPACE_NOT_FOUND' }
  /** A gateway asks by the rules of a keyspace that has none for HTTP. */
  | { readonly refused: 'HTTP_RULES_MISSING' }
  | { readonly refused: 'KEY_NOT_FOUND' }
  | { readonly refused: 'NAME_TAKEN' }
  /** What an imported key is found by belongs to another key: its digest, or in pair form its client id. */
  | { readonly refused: 'DIGEST_TAKEN'; readonly by: 'digest' | 'client_id' }
  | { readonly refused: 'KEY_REVOKED' }
  | { readonly refused: 'KEY_SUPERSEDED' }
  | { readonly refused: 'KEY_EXPIRED' }
  | { readonly refused: 'ORGANIZATION_SUSPENDED' }
  | { readonly refused: 'ETAG_MISMATCH' }
  | { readonly refused: 'NAME_AMBIGUOUS' }
  | {
      readonly refused: 'KEY_LIMIT_REACHED';
      readonly limit: number;
      readonly plan: string;
      /** How many of the keys are expired. Absent where nobody counted: the rule does not. */
      readonly expired?: number;
    }
  | { readonly refused: 'REQUEST_ID_REUSED' }
  /** Too many events wait for the audit sink: nothing is created or widened until it has caught up. */
  | { readonly refused: 'AUDIT_BACKLOG' }
  | { readonly refused: 'CALLER_UNKNOWN' }
  | { readonly refused: 'CALLER_NOT_ALLOWED' }
  | { readonly refused: 'ACTOR_NOT_ALLOWED'; readonly message: string };

export type RefusalReason = Refusal['refused'];

export function isRefusal(answer: unknown): answer is Refusal {
  return typeof answer === 'object' && answer !== null && 'refused' in answer;
}

export function refuseArgument(refused: ArgumentReason, field: string, message: string): ArgumentRefusal {
  return { refused, field, message };
}
