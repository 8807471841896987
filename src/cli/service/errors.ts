/** The service's errors, each as one line (reason, field, message, way out) and an exit code. */
import { type ServiceError, status } from '@grpc/grpc-js';

import { BadRequest, ErrorInfo, RetryInfo } from '../../gen/google/rpc/error_details.js';
import { Status } from '../../gen/google/rpc/status.js';
import { type ExitCode, exitCodes } from '../exit-codes.js';
import { CommandFault } from '../faults.js';
import { toMs } from '../output/times.js';

export interface CallContext {
  /** `host:port`. */
  readonly server: string;
  /** Of a mutation. */
  readonly requestId?: string | undefined;
  /** With Ctrl-C: the command itself cancelled the call. A server cancels too, as when it shuts down. */
  readonly interrupted?: boolean;
}

/** @param error null where the call ended without error and without answer */
export function toCallFault(error: ServiceError | null, context: CallContext): CommandFault {
  const code = error?.code ?? status.UNKNOWN;
  const interrupted = code === status.CANCELLED && context.interrupted === true;
  const details = readDetails(error);
  const reason = details.reason ?? status[code];
  const fields = details.fields.length > 0 ? ` (${details.fields.join(', ')})` : '';
  const parts = [
    `${reason}${fields}: ${interrupted ? 'interrupted' : withoutStop(messageOf(error))}`,
    details.retryMs === undefined ? undefined : `the service asks to wait ${Math.ceil(details.retryMs / 1000)} s`,
    interrupted ? undefined : hintOf(code, details.reason, context),
    ...(context.requestId !== undefined && mayHaveHappened(code, details.reason)
      ? [`it may have been carried out all the same: repeat it with --request-id ${context.requestId} to find out`]
      : []),
  ];
  const exitCode = interrupted ? exitCodes.interrupted : exitCodeOf(code, details.reason);
  const message = parts.filter((part) => part !== undefined).join('; ');
  return new CommandFault(exitCode, message, { cause: error ?? undefined });
}

interface Details {
  readonly reason?: string;
  readonly fields: readonly string[];
  readonly retryMs?: number;
}

const EXIT_CODES: Readonly<Record<status, ExitCode>> = {
  [status.OK]: exitCodes.internal,
  [status.CANCELLED]: exitCodes.unavailable,
  [status.UNKNOWN]: exitCodes.internal,
  [status.INVALID_ARGUMENT]: exitCodes.refused,
  [status.DEADLINE_EXCEEDED]: exitCodes.unavailable,
  [status.NOT_FOUND]: exitCodes.refused,
  [status.ALREADY_EXISTS]: exitCodes.refused,
  [status.PERMISSION_DENIED]: exitCodes.denied,
  [status.RESOURCE_EXHAUSTED]: exitCodes.refused,
  [status.FAILED_PRECONDITION]: exitCodes.refused,
  [status.ABORTED]: exitCodes.unavailable,
  [status.OUT_OF_RANGE]: exitCodes.refused,
  [status.UNIMPLEMENTED]: exitCodes.internal,
  [status.INTERNAL]: exitCodes.internal,
  [status.UNAVAILABLE]: exitCodes.unavailable,
  [status.DATA_LOSS]: exitCodes.internal,
  [status.UNAUTHENTICATED]: exitCodes.denied,
};

/** What to do about it in terms of this command, where the service's own message, which speaks to all, does not say. */
const HINTS = {
  KEYSPACE_REQUIRED: 'use --keyspace',
  KEYSPACE_NOT_FOUND: "check --keyspace against the service's keyspaces file, and the caller's policy",
  ACTOR_REQUIRED: 'use --actor user:ID',
  ACTOR_NOT_ALLOWED: 'use --permission for what the actor may do; a caller without may_assert_actor leaves --actor out',
  NAME_REQUIRED: 'use --name',
  NAME_AMBIGUOUS: 'use --id; keyreeve keys list shows the ids',
  TYPE_INVALID: 'use --type',
  EXPIRATION_INVALID: 'use --expires, or --ttl where the command has it',
  OVERLAP_INVALID: 'use --overlap',
  PLAN_UNKNOWN: 'use --plan with one that the keyspaces file declares',
  KEY_SUPERSEDED: 'keyreeve keys get shows which key superseded it: select that one by --id',
  KEY_NOT_FOUND: 'keyreeve keys list shows those that it has',
  KEY_LIMIT_REACHED: 'keyreeve keys list --state expired shows those that no longer work',
  CALLER_UNKNOWN: 'set KEYREEVE_TOKEN or use --token-file; keyreeve callers token makes one',
} as const;

/** By a status and, where the service gave one, its reason. A service of a later version may know more statuses. */
export function exitCodeOf(code: number, reason: string | undefined): ExitCode {
  if (reason === 'OVERLOADED') return exitCodes.unavailable;
  if (reason === 'ETAG_MISMATCH') return exitCodes.refused;
  return (EXIT_CODES as Partial<Record<number, ExitCode>>)[code] ?? exitCodes.internal;
}

function hintOf(code: status, reason: string | undefined, { server }: CallContext): string | undefined {
  if (reason !== undefined) return new Map<string, string>(Object.entries(HINTS)).get(reason);
  if (code === status.UNAVAILABLE) {
    return `is the service running at ${server} (keyreeve serve)? If it is elsewhere, use --server; if only one side speaks TLS, --tls, --ca-cert or --insecure; if it asks for a certificate, --client-cert`;
  }
  if (code === status.CANCELLED) return 'the service ended the call, as when it shuts down: try again';
  if (code === status.DEADLINE_EXCEEDED) return 'try again, or wait longer with --timeout';
  if (code === status.UNIMPLEMENTED) return `what answers at ${server} is no Keyreeve, or one of another version`;
  return code === status.UNAUTHENTICATED ? HINTS.CALLER_UNKNOWN : undefined;
}

function mayHaveHappened(code: status, reason: string | undefined): boolean {
  const unsure = [status.UNAVAILABLE, status.DEADLINE_EXCEEDED, status.CANCELLED, status.UNKNOWN, status.INTERNAL];
  return unsure.includes(code) && reason !== 'AUDIT_BACKLOG';
}

function messageOf(error: ServiceError | null): string {
  // What the library says of a connection that failed ends in notes about name resolution, most often empty ones, and
  // what OpenSSL says of one breaks the line.
  const message = error?.details.replace(/ Resolution note:.*$/s, '').replace(/\s+/g, ' ');
  return message ?? 'the service answered nothing';
}

function withoutStop(message: string): string {
  return message.trim().replace(/\.$/, '');
}

const TYPE_URL_PREFIX = 'type.googleapis.com/google.rpc.';

function readDetails(error: ServiceError | null): Details {
  const none: Details = { fields: [] };
  // An error that no server sent may lack metadata, whatever its type says.
  const [bytes] = (error as Partial<ServiceError> | null)?.metadata?.get('grpc-status-details-bin') ?? [];
  if (!Buffer.isBuffer(bytes)) return none;
  try {
    return Status.decode(bytes).details.reduce(readDetail, none);
  } catch {
    // Not what `google.rpc.Status` encodes, so of some other server or proxy: the status itself still says something.
    return none;
  }
}

function readDetail(details: Details, { typeUrl, value }: { typeUrl: string; value: Uint8Array }): Details {
  switch (typeUrl) {
    case `${TYPE_URL_PREFIX}ErrorInfo`: {
      const { reason } = ErrorInfo.decode(value);
      return { ...details, reason };
    }
    case `${TYPE_URL_PREFIX}BadRequest`:
      return { ...details, fields: BadRequest.decode(value).fieldViolations.map(({ field }) => field) };
    case `${TYPE_URL_PREFIX}RetryInfo`: {
      const { retryDelay } = RetryInfo.decode(value);
      return retryDelay ? { ...details, retryMs: toMs(retryDelay) } : details;
    }
    default:
      return details;
  }
}
