/** What the driver's errors mean: whether others were first, the set is away, or something is wrong with the program. */
import {
  MongoBulkWriteError,
  MongoError,
  MongoErrorLabel,
  MongoNetworkError,
  MongoServerError,
  MongoSystemError,
} from 'mongodb';

import { StoreFault } from '../faults.js';

/** The deadline passed while MongoDB was working or away: what was sent may yet be carried out. */
export class TimedOut extends Error {
  override readonly name = 'TimedOut';

  constructor() {
    super('MongoDB did not answer before the deadline');
  }
}

/** Another change was committed first; to be tried again on what is stored now. */
export class Overtaken extends Error {
  override readonly name = 'Overtaken';
}

// https://github.com/mongodb/mongo/blob/v6.0/src/mongo/base/error_codes.yml
const DUPLICATE_KEY = 11000;
const DOCUMENT_VALIDATION_FAILURE = 121;
const NAMESPACE_EXISTS = 48;
const LOCK_TIMEOUT = 24;
const AUTHENTICATION_FAILED = 18;
const INVALID_OPTIONS = 72;
const WRITE_CONFLICT = 112;
const CONFLICTING_OPERATION_IN_PROGRESS = 117;
const BACKGROUND_OPERATION_IN_PROGRESS = 12587;
const SNAPSHOT_TOO_OLD = 239;
const SNAPSHOT_UNAVAILABLE = 246;

/** The set, or the member asked, cannot serve now; or this service is not let in, which is for an operator to mend. */
const AWAY = new Set([
  6, // HostUnreachable
  7, // HostNotFound
  13, // Unauthorized
  AUTHENTICATION_FAILED,
  43, // CursorNotFound: begun before the member was started again
  50, // MaxTimeMSExpired
  64, // WriteConcernFailed
  89, // NetworkTimeout
  91, // ShutdownInProgress
  94, // NotYetInitialized
  100, // UnsatisfiableWriteConcern
  134, // ReadConcernMajorityNotAvailableYet
  175, // QueryPlanKilled
  187, // LinearizableReadConcernError
  189, // PrimarySteppedDown
  237, // CursorKilled
  SNAPSHOT_TOO_OLD,
  SNAPSHOT_UNAVAILABLE,
  251, // NoSuchTransaction: ended by the server, as when a primary steps down
  262, // ExceededTimeLimit
  279, // ClientDisconnect
  9001, // SocketException
  10107, // NotWritablePrimary
  11600, // InterruptedAtShutdown
  11601, // Interrupted
  11602, // InterruptedDueToReplStateChange
  13435, // NotPrimaryNoSecondaryOk
  13436, // NotPrimaryOrSecondary
  14031, // OutOfDiskSpace
]);

// Those of the driver that have no class in common, or none that it exports.
const AWAY_NAMES = new Set([
  'MongoPoolClosedError',
  'MongoWaitQueueTimeoutError',
  'MongoServerClosedError',
  'MongoTopologyClosedError',
  'MongoClientClosedError',
  'MongoNotConnectedError',
  'MongoExpiredSessionError',
  // A member that was lost between being chosen and being asked: it is said to support no retryable writes.
  'MongoUnexpectedServerResponseError',
]);

// What the system, and Node's streams, say of a connection that is no more.
const BROKEN = new Set([
  'EPIPE',
  'ECONNRESET',
  'ECONNABORTED',
  'ETIMEDOUT',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ENETDOWN',
  'ERR_STREAM_DESTROYED',
  'ERR_STREAM_WRITE_AFTER_END',
]);

/** Why a call failed; undefined where trying again would not help, since the program is at fault. */
export function troubleOf(thrown: unknown): StoreFault['kind'] | undefined {
  const error = outOfBulk(thrown);
  if (error instanceof Overtaken) return 'contention';
  if (error instanceof TimedOut) return 'unavailable';
  if (isBrokenConnection(error)) return 'unavailable';
  if (!(error instanceof MongoError)) return undefined;
  if (hasCode(error, WRITE_CONFLICT, LOCK_TIMEOUT)) return 'contention';
  return isAway(error) || error.hasErrorLabel(MongoErrorLabel.TransientTransactionError) ? 'unavailable' : undefined;
}

/** Whether the server itself said that the commit did not happen, and that trying the whole again is safe. */
export function isRolledBack(error: unknown): boolean {
  return (
    error instanceof MongoServerError &&
    error.writeConcernError === undefined &&
    error.hasErrorLabel(MongoErrorLabel.TransientTransactionError)
  );
}

/** Whether a commit that failed so was certainly turned down, and would be again. */
export function isTurnedDown(error: unknown): boolean {
  return (
    error instanceof MongoServerError &&
    error.writeConcernError === undefined &&
    !error.hasErrorLabel(MongoErrorLabel.UnknownTransactionCommitResult) &&
    !error.hasErrorLabel(MongoErrorLabel.RetryableWriteError) &&
    !isAway(error)
  );
}

/** @param field only that of a unique index with this field */
export function isDuplicateKey(error: unknown, field?: string): boolean {
  if (!hasCode(error, DUPLICATE_KEY)) return false;
  return field === undefined || Object.hasOwn((error as { keyPattern?: object }).keyPattern ?? {}, field);
}

export function isLoginRefused(error: unknown): boolean {
  return hasCode(error, AUTHENTICATION_FAILED);
}

/** The moment that was to be read is gone, or a collection is younger than it. */
export function isSnapshotGone(error: unknown): boolean {
  return hasCode(error, SNAPSHOT_TOO_OLD, SNAPSHOT_UNAVAILABLE);
}

/** The time that was asked for is ahead of what the member knows, or it is none to ask for so. */
export function isTimeRefused(error: unknown): boolean {
  return hasCode(error, INVALID_OPTIONS);
}

/** Another replica is making the same collection or index at this moment. */
export function isSchemaRace(error: unknown): boolean {
  return hasCode(
    error,
    NAMESPACE_EXISTS,
    DUPLICATE_KEY,
    LOCK_TIMEOUT,
    WRITE_CONFLICT,
    CONFLICTING_OPERATION_IN_PROGRESS,
    BACKGROUND_OPERATION_IN_PROGRESS,
  );
}

/** What leaves the adapter: faults for what is no defect; of defects, no stored values, which the server's words quote. */
export function toFault(error: unknown): unknown {
  const kind = troubleOf(error);
  if (kind !== undefined) {
    const message =
      error instanceof TimedOut ? error.message : 'MongoDB has no primary that can be reached and can serve';
    return new StoreFault(kind, message, { cause: error });
  }
  if (isDuplicateKey(error)) {
    const { keyPattern } = error as { keyPattern?: object };
    return new Error(`a change contradicts what is stored: ${Object.keys(keyPattern ?? {}).join(', ')} must be unique`);
  }
  if (hasCode(error, DOCUMENT_VALIDATION_FAILURE)) {
    return new Error("a change breaks the rules of its collection's validator");
  }
  return error;
}

/** A bulk write wraps what the driver threw in an error that looks like the server's. */
function outOfBulk(error: unknown): unknown {
  return error instanceof MongoBulkWriteError && error.errorResponse instanceof Error ? error.errorResponse : error;
}

/** While the driver waits to write more, what becomes of the connection comes out of it bare, in no class of its own. */
function isBrokenConnection(error: unknown): boolean {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' && BROKEN.has(error.code);
}

function isAway(error: MongoError): boolean {
  return (
    error instanceof MongoNetworkError ||
    error instanceof MongoSystemError ||
    (error instanceof MongoServerError && error.writeConcernError !== undefined) ||
    AWAY_NAMES.has(error.name) ||
    (typeof error.code === 'number' && AWAY.has(error.code))
  );
}

function hasCode(error: unknown, ...codes: number[]): boolean {
  return error instanceof MongoServerError && typeof error.code === 'number' && codes.includes(error.code);
}
