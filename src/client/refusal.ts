/** What the service turns down, as a value; what broke on the way is a `ServiceFault`. */
import { type ServiceError, status } from '@grpc/grpc-js';

import { BadRequest, ErrorInfo, RetryInfo } from '../gen/google/rpc/error_details.js';
import { Status } from '../gen/google/rpc/status.js';
import type { Failure } from '../gen/keyreeve/v1/failure.js';
import { ServiceFault } from './fault.js';
import { toMs } from './times.js';

/** The reasons that this version knows, by the code that they come with. Later services may know more. */
export const REFUSAL_REASONS = {
  INVALID_ARGUMENT: [
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
  ],
  NOT_FOUND: ['KEYSPACE_NOT_FOUND', 'KEY_NOT_FOUND'],
  ALREADY_EXISTS: ['NAME_TAKEN', 'DIGEST_TAKEN'],
  RESOURCE_EXHAUSTED: ['KEY_LIMIT_REACHED'],
  FAILED_PRECONDITION: [
    'KEY_REVOKED',
    'KEY_SUPERSEDED',
    'KEY_EXPIRED',
    'NAME_AMBIGUOUS',
    'REQUEST_ID_REUSED',
    'ORGANIZATION_SUSPENDED',
  ],
  ABORTED: ['ETAG_MISMATCH'],
  UNAUTHENTICATED: ['CALLER_UNKNOWN'],
  PERMISSION_DENIED: ['CALLER_NOT_ALLOWED', 'ACTOR_NOT_ALLOWED'],
} as const;

type Reasons = typeof REFUSAL_REASONS;

/** A reason that this version knows, or one that it does not. */
export type RefusalReason = Reasons[keyof Reasons][number] | (string & {});

/** The service carried nothing out: the request, or the service that sent it, is at fault. */
export interface Refusal {
  readonly ok: false;
  /** What programs decide by. */
  readonly reason: RefusalReason;
  /** The gRPC status under which it came. */
  readonly code: string;
  /** For people. */
  readonly message: string;
  /** What goes with the reason: of `KEY_LIMIT_REACHED` the `limit`, the `plan` and how many of the keys are `expired`. */
  readonly metadata: Readonly<Record<string, string>>;
  /** The fields at fault. */
  readonly violations: readonly FieldViolation[];
}

export interface FieldViolation {
  /** Its path in the request, in the API's own spelling: `expire_time`. */
  readonly field: string;
  readonly description: string;
}

/** What was asked for, or why it was turned down. */
export type Answer<Content> = ({ readonly ok: true } & Content) | Refusal;

/** What a call came to, as the service sent it. */
export type Told<Response> = { readonly ok: true; readonly response: Response } | Refusal;

/** An error of a call. */
export function toRefusalOrFault(error: ServiceError): Refusal | ServiceFault {
  // What failed on this side is another kind of error, whatever its type says.
  const { code, details, message } = error as Partial<ServiceError>;
  return judge({ code: nameOf(code), message: details ?? message ?? 'it failed', ...readDetails(error) }, error);
}

/** Of one item of several, whether it was turned down or could not be carried out. */
export function toItemRefusal({ code, reason, message, field }: Failure): Refusal {
  const violations = field === '' ? [] : [{ field, description: message }];
  return { ok: false, reason, code: nameOf(code), message, metadata: {}, violations };
}

/** Of one item of several. */
export function toItemRefusalOrFault(failure: Failure): Refusal | ServiceFault {
  return judge(toItemRefusal(failure));
}

interface Details {
  readonly reason?: string;
  readonly metadata: Readonly<Record<string, string>>;
  readonly violations: readonly FieldViolation[];
  readonly retryAfterMs?: number;
}

type ToldError = Details & { readonly code: string; readonly message: string };

// The service could not do it now, and may the next time: these come under codes that are refusals' otherwise.
const FAULT_REASONS: readonly string[] = ['OVERLOADED', 'CONTENTION'];

function judge(told: ToldError, cause?: ServiceError): Refusal | ServiceFault {
  const { code, reason, message, metadata, violations, retryAfterMs } = told;
  // Without a reason of Keyreeve's it is a proxy that speaks, or the transport.
  if (reason !== undefined && code in REFUSAL_REASONS && !FAULT_REASONS.includes(reason)) {
    return { ok: false, reason, code, message, metadata, violations };
  }
  const facts = { ...(reason !== undefined && { reason }), ...(retryAfterMs !== undefined && { retryAfterMs }), cause };
  return isBrokenOff(told)
    ? new ServiceFault('UNAVAILABLE', 'the connection broke off', facts)
    : new ServiceFault(code, message, facts);
}

/** A connection that ends in the middle of a call shows as a cancellation, or as a stream that was reset. */
function isBrokenOff({ code, message }: ToldError): boolean {
  return code === 'CANCELLED' || (code === 'INTERNAL' && message.startsWith('Received RST_STREAM'));
}

function nameOf(code = -1): string {
  return (status as Partial<Record<number, string>>)[code] ?? 'UNKNOWN';
}

const DOMAIN = 'keyreeve';
const TYPE_URL_PREFIX = 'type.googleapis.com/google.rpc.';

function readDetails(error: ServiceError): Details {
  const none: Details = { metadata: {}, violations: [] };
  // An error that no server sent may lack metadata, whatever its type says.
  const [bytes] = (error as Partial<ServiceError>).metadata?.get('grpc-status-details-bin') ?? [];
  if (!Buffer.isBuffer(bytes)) return none;
  try {
    return Status.decode(bytes).details.reduce(readDetail, none);
  } catch {
    return none;
  }
}

function readDetail(details: Details, { typeUrl, value }: { typeUrl: string; value: Uint8Array }): Details {
  switch (typeUrl) {
    case `${TYPE_URL_PREFIX}ErrorInfo`: {
      const { domain, reason, metadata } = ErrorInfo.decode(value);
      return domain === DOMAIN ? { ...details, reason, metadata: Object.fromEntries(metadata) } : details;
    }
    case `${TYPE_URL_PREFIX}BadRequest`: {
      const { fieldViolations } = BadRequest.decode(value);
      return { ...details, violations: fieldViolations.map(({ field, description }) => ({ field, description })) };
    }
    case `${TYPE_URL_PREFIX}RetryInfo`: {
      const { retryDelay } = RetryInfo.decode(value);
      return retryDelay ? { ...details, retryAfterMs: toMs(retryDelay) } : details;
    }
    default:
      return details;
  }
}
