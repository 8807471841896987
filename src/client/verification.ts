import type { VerifyKeyRequest, VerifyKeyResponse } from '../gen/keyreeve/v1/key_service.js';
import {
  Decision,
  type RateLimit as RateLimitMessage,
  type VerifiedKey as VerifiedKeyMessage,
} from '../gen/keyreeve/v1/verification.js';
import { type Credential, toCredentialMessage } from './credential.js';
import { type Named, nameIn } from './names.js';
import type { Refusal, RefusalReason, Told } from './refusal.js';
import { toDate, toMs } from './times.js';

/** What was presented, and what it must be good for. */
export interface VerifyKey {
  /** Absent: none was presented, which is denied as `MALFORMED`. */
  readonly credential?: Credential | undefined;
  /** Looks only in this keyspace; a client id and a secret need it. Absent: in all that the caller may verify for. */
  readonly keyspace?: string | undefined;
  /** Whose key it must be. Absent: any that the caller may verify for. */
  readonly organizationId?: string | undefined;
  /** The key must have all of them. */
  readonly requiredScopes?: readonly string[] | undefined;
}

/** Whether the credential lets the request in. */
export type Verification = Allowed | Denied;

export interface Allowed {
  readonly allowed: true;
  readonly key: VerifiedKey;
  /** Where the key stands against its limit. Absent: it has none. */
  readonly rateLimit?: RateLimit;
  /** For how long this answer may be given again to the same request. 0: not at all. The client itself keeps none. */
  readonly cacheTtlMs: number;
}

export interface Denied {
  readonly allowed: false;
  /**
   * The service's decision; `UNRECOGNIZED` where it is one that this version does not know. Or, with `refusal`, why the
   * service would not look at the credential at all.
   */
  readonly reason: Denial | RefusalReason;
  /** Whose key it was. Absent with `MALFORMED`, `NOT_FOUND` and `WRONG_ORGANIZATION`. */
  readonly key?: VerifiedKey;
  readonly rateLimit?: RateLimit;
  /** Nothing was decided about the credential: what was asked, or who asked, is at fault. */
  readonly refusal?: Refusal;
}

export type Denial = Exclude<Named<typeof Decision>, 'VALID'>;

/** What is told of a key that was verified. */
export interface VerifiedKey extends Readonly<Omit<VerifiedKeyMessage, 'expireTime' | 'labels' | 'scopes'>> {
  readonly scopes: readonly string[];
  readonly labels: Readonly<Record<string, string>>;
  /** From when on it is expired. Absent: never. */
  readonly expireTime?: Date;
}

export interface RateLimit {
  /** How many requests a window admits. */
  readonly limit: number;
  /** How many this one still admits, at most. */
  readonly remaining: number;
  readonly windowMs: number;
  /** When this window ends. Absent: none is open. */
  readonly resetTime?: Date;
  /** With `RATE_LIMITED`: how long until a request can be admitted again. */
  readonly retryAfterMs?: number;
}

export function toVerifyKeyRequest(ask: VerifyKey): VerifyKeyRequest {
  const { credential, keyspace = '', organizationId = '', requiredScopes = [] } = ask;
  return {
    keyspace,
    organizationId,
    credential: credential === undefined ? undefined : toCredentialMessage(credential),
    requiredScopes: [...requiredScopes],
  };
}

/** Only VALID lets anyone in, and only with a key. */
export function toVerification(told: Told<VerifyKeyResponse>): Verification {
  if (!told.ok) return { allowed: false, reason: told.reason, refusal: told };
  const { decision, key, rateLimit, cacheTtl } = told.response;
  const reason = nameIn(Decision, decision);
  const limit = rateLimit && { rateLimit: toRateLimit(rateLimit) };
  if (reason === 'VALID' && key) {
    return { allowed: true, key: toVerifiedKey(key), ...limit, cacheTtlMs: cacheTtl ? toMs(cacheTtl) : 0 };
  }
  return {
    allowed: false,
    reason: reason === 'VALID' ? 'UNRECOGNIZED' : reason,
    ...(key && { key: toVerifiedKey(key) }),
    ...limit,
  };
}

function toVerifiedKey({ expireTime, labels, ...rest }: VerifiedKeyMessage): VerifiedKey {
  return { ...rest, labels: Object.fromEntries(labels), ...(expireTime && { expireTime: toDate(expireTime) }) };
}

function toRateLimit({ limit, remaining, window, resetTime, retryAfter }: RateLimitMessage): RateLimit {
  return {
    limit,
    remaining,
    windowMs: window ? toMs(window) : 0,
    ...(resetTime && { resetTime: toDate(resetTime) }),
    ...(retryAfter && { retryAfterMs: toMs(retryAfter) }),
  };
}
