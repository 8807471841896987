/** The only file that knows both vocabularies: what the rules turn down, and what gRPC tells a client. */
import { Metadata, status } from '@grpc/grpc-js';

import type { Failure } from '../gen/keyreeve/v1/failure.js';
import { BadRequest, ErrorInfo, QuotaFailure, RetryInfo } from '../gen/google/rpc/error_details.js';
import { Status } from '../gen/google/rpc/status.js';
import { ARGUMENT_REASONS, type ArgumentReason, type Refusal, type RefusalReason, isRefusal } from '../keys/refusal.js';
import { StoreFault } from '../store/faults.js';
import { Overloaded } from '../verify/misses.js';

/** A refusal on its way from a handler to the client. */
export class Refused extends Error {
  override readonly name = 'Refused';

  constructor(readonly refusal: Refusal) {
    super(refusal.refused);
  }
}

/** Nobody waits for the answer any more, and nothing was begun. */
export class Unwanted extends Error {
  override readonly name = 'Unwanted';

  constructor(readonly why: 'CANCELLED' | 'DEADLINE_EXCEEDED') {
    super(why);
  }
}

/** The server is about to end and begins nothing new. */
export class ShuttingDown extends Error {
  override readonly name = 'ShuttingDown';
}

/** @throws Refused where the answer is a refusal */
export function orRefuse<A>(answer: A): Exclude<A, Refusal> {
  if (isRefusal(answer)) throw new Refused(answer);
  return answer as Exclude<A, Refusal>;
}

/** What a client is told instead of a response. */
export interface ErrorAnswer {
  readonly code: status;
  /** For people. The same text for whatever exists and must not be known and for what does not exist. */
  readonly details: string;
  readonly metadata: Metadata;
  /** Upper snake case: what a program decides by, or the code's name where the API has no reason for it. */
  readonly reason: string;
  /** The path of the field at fault in the request; empty where no single one is. */
  readonly field: string;
  /** Whether something broke, as against what was turned down. */
  readonly isFault: boolean;
}

export function toErrorAnswer(error: unknown): ErrorAnswer {
  if (error instanceof Refused) return toAnswer(error.refusal);
  if (error instanceof StoreFault) {
    return { ...toAnswer({ refused: FAULTS[error.kind] }), isFault: true };
  }
  if (error instanceof Overloaded) return toAnswer({ refused: 'OVERLOADED' });
  if (error instanceof ShuttingDown) return toAnswer({ refused: 'SHUTTING_DOWN' });
  if (error instanceof Unwanted) {
    const details = 'nobody waits for the answer any more, and nothing was begun';
    return { code: status[error.why], details, metadata: new Metadata(), reason: error.why, field: '', isFault: false };
  }
  // What nobody foresaw stays in the log.
  return {
    code: status.INTERNAL,
    details: 'internal error',
    metadata: new Metadata(),
    reason: 'INTERNAL',
    field: '',
    isFault: true,
  };
}

/** What a client is told of one item of several, which fails alone. */
export function toFailure(error: Refused | StoreFault): Failure {
  const { code, reason, details, field } = toErrorAnswer(error);
  return { code, reason, message: details, field };
}

type FaultReason = 'STORE_UNAVAILABLE' | 'CONTENTION' | 'OVERLOADED' | 'SHUTTING_DOWN';
type Reason = RefusalReason | FaultReason;
type Told = Refusal | { readonly refused: FaultReason };

const ARGUMENT = Object.fromEntries(ARGUMENT_REASONS.map((reason) => [reason, status.INVALID_ARGUMENT])) as Record<
  ArgumentReason,
  status
>;
/** Every reason that a call can be refused with, and the code that it goes with. */
export const REASON_CODES: Readonly<Record<Reason, status>> = {
  ...ARGUMENT,
  KEYSPACE_NOT_FOUND: status.NOT_FOUND,
  HTTP_RULES_MISSING: status.FAILED_PRECONDITION,
  KEY_NOT_FOUND: status.NOT_FOUND,
  NAME_TAKEN: status.ALREADY_EXISTS,
  DIGEST_TAKEN: status.ALREADY_EXISTS,
  KEY_LIMIT_REACHED: status.RESOURCE_EXHAUSTED,
  OVERLOADED: status.RESOURCE_EXHAUSTED,
  KEY_REVOKED: status.FAILED_PRECONDITION,
  KEY_SUPERSEDED: status.FAILED_PRECONDITION,
  KEY_EXPIRED: status.FAILED_PRECONDITION,
  NAME_AMBIGUOUS: status.FAILED_PRECONDITION,
  REQUEST_ID_REUSED: status.FAILED_PRECONDITION,
  ORGANIZATION_SUSPENDED: status.FAILED_PRECONDITION,
  ETAG_MISMATCH: status.ABORTED,
  CONTENTION: status.ABORTED,
  CALLER_UNKNOWN: status.UNAUTHENTICATED,
  CALLER_NOT_ALLOWED: status.PERMISSION_DENIED,
  ACTOR_NOT_ALLOWED: status.PERMISSION_DENIED,
  STORE_UNAVAILABLE: status.UNAVAILABLE,
  AUDIT_BACKLOG: status.UNAVAILABLE,
  SHUTTING_DOWN: status.UNAVAILABLE,
};

const FAULTS = { unavailable: 'STORE_UNAVAILABLE', contention: 'CONTENTION' } as const satisfies Record<
  StoreFault['kind'],
  Reason
>;

const DOMAIN = 'keyreeve';
// A store that fails over and a load balancer that looks elsewhere take about so long; a backlog takes longer to drain.
const RETRY_SECONDS: Partial<Record<Reason, bigint>> = {
  STORE_UNAVAILABLE: 1n,
  OVERLOADED: 1n,
  SHUTTING_DOWN: 1n,
  AUDIT_BACKLOG: 10n,
};

function toAnswer(told: Told): ErrorAnswer {
  const code = REASON_CODES[told.refused];
  const details = explain(told);
  const metadata = new Metadata();
  metadata.set('grpc-status-details-bin', toDetails(told, code, details));
  return { code, details, metadata, reason: told.refused, field: fieldOf(told), isFault: false };
}

function fieldOf(told: Told): string {
  if ('field' in told) return told.field;
  return told.refused === 'DIGEST_TAKEN' ? told.by : '';
}

function explain(told: Told): string {
  if ('message' in told) return told.message;
  switch (told.refused) {
    case 'KEYSPACE_NOT_FOUND':
      return 'there is no such keyspace that this caller may use';
    case 'HTTP_RULES_MISSING':
      return 'the keyspace has no section http in the keyspaces file, so that no gateway can check requests by it; add one';
    case 'KEY_NOT_FOUND':
      return 'the organization has no such key';
    case 'NAME_TAKEN':
      return 'another key of the organization has this name; revoke that key, or choose another name';
    case 'DIGEST_TAKEN':
      return told.by === 'digest'
        ? 'another organization of the keyspace has a key with this digest'
        : 'a key of the organization has this client id or this digest, but not both of them';
    case 'KEY_REVOKED':
      return 'the key is revoked, and nothing changes it any more';
    case 'KEY_SUPERSEDED':
      return 'another key has taken its place; this one can only be switched off, ended earlier or revoked';
    case 'KEY_EXPIRED':
      return 'the key is expired; give it a later expire_time first, or create another key';
    case 'ORGANIZATION_SUSPENDED':
      return 'the organization is suspended: it gets no new key until it is not';
    case 'ETAG_MISMATCH':
      return 'it was changed since the etag was read; read it again and decide anew';
    case 'NAME_AMBIGUOUS':
      return 'several keys of the organization have this name; select one by key_id';
    case 'KEY_LIMIT_REACHED':
      return `plan ${told.plan} allows ${told.limit} keys; revoke one that is not needed, or change the plan`;
    case 'REQUEST_ID_REUSED':
      return 'another request was made under this request_id; take a new one for a new request';
    case 'AUDIT_BACKLOG':
      return 'the audit is too far behind: nothing is created or widened until it has caught up (taking access away goes on)';
    case 'CALLER_UNKNOWN':
      return 'the call needs the token of a known caller: authorization: Bearer <token>';
    case 'CALLER_NOT_ALLOWED':
      return 'the policy does not allow this caller to do this here';
    case 'STORE_UNAVAILABLE':
      return 'the store cannot answer now; the call can be repeated, with its request_id where it has one';
    case 'CONTENTION':
      return 'others changed the same organization until the deadline, and nothing was changed; repeat the call';
    case 'OVERLOADED':
      return 'too many verifications of this caller wait for the store; ask for fewer keys at once that were not asked for before';
    case 'SHUTTING_DOWN':
      return 'this server is about to end; repeat the call, with its request_id where it has one';
  }
}

function toDetails(told: Told, code: status, message: string): Buffer {
  const details = [
    any('ErrorInfo', ErrorInfo.encode({ reason: told.refused, domain: DOMAIN, metadata: metadataOf(told) }).finish()),
  ];
  if ('field' in told) {
    const { field, message: description, refused: reason } = told;
    const fieldViolations = [{ field, description, reason, localizedMessage: undefined }];
    details.push(any('BadRequest', BadRequest.encode({ fieldViolations }).finish()));
  }
  if (told.refused === 'KEY_LIMIT_REACHED') {
    const violation = QuotaFailure.fromPartial({
      violations: [{ subject: `plan:${told.plan}`, description: message }],
    });
    details.push(any('QuotaFailure', QuotaFailure.encode(violation).finish()));
  }
  const seconds = RETRY_SECONDS[told.refused];
  if (seconds !== undefined) {
    details.push(any('RetryInfo', RetryInfo.encode({ retryDelay: { seconds, nanos: 0 } }).finish()));
  }
  return Buffer.from(Status.encode({ code, message, details }).finish());
}

function metadataOf(told: Told): Map<string, string> {
  if (told.refused !== 'KEY_LIMIT_REACHED') return new Map();
  const { limit, plan, expired } = told;
  return new Map([
    ['limit', String(limit)],
    ['plan', plan],
    ...(expired === undefined ? [] : [['expired', String(expired)] as const]),
  ]);
}

function any(type: string, value: Uint8Array): { typeUrl: string; value: Buffer } {
  return { typeUrl: `type.googleapis.com/google.rpc.${type}`, value: Buffer.from(value) };
}
