import type { Duration } from '../gen/google/protobuf/duration.js';
import type { Timestamp } from '../gen/google/protobuf/timestamp.js';
import type { Expiration } from '../keys/expiration.js';
import { type ArgumentRefusal, isRefusal, refuseArgument } from '../keys/refusal.js';

/** As `oneof expiration` arrives. */
export type ExpirationMessage =
  { readonly $case: 'expireTime'; readonly value: Timestamp } | { readonly $case: 'ttl'; readonly value: Duration };

// The bounds that google.protobuf states; the runtime lets any number through.
const TIMESTAMP_SECONDS_MIN = -62_135_596_800n;
const TIMESTAMP_SECONDS_MAX = 253_402_300_799n;
const DURATION_SECONDS_MAX = 315_576_000_000n;
const NANOS_MAX = 999_999_999;

/** Rounds down to the millisecond. Whether the time lies ahead, and not too far, is the rule's to judge. */
export function parseExpiration(message: ExpirationMessage | undefined): Expiration | ArgumentRefusal {
  switch (message?.$case) {
    case undefined:
      return { kind: 'default' };
    case 'expireTime':
      return parseExpireTime(message.value);
    case 'ttl':
      return parseTtl(message.value);
  }
}

/** Rounds down to the millisecond. */
export function parseTimestamp({ seconds, nanos }: Timestamp, field: string): Date | ArgumentRefusal {
  if (seconds < TIMESTAMP_SECONDS_MIN || seconds > TIMESTAMP_SECONDS_MAX || nanos < 0 || nanos > NANOS_MAX) {
    return refuseArgument(
      'EXPIRATION_INVALID',
      field,
      `${field} must be a valid Timestamp: before the year 10000, nanos from 0 to 999999999`,
    );
  }
  return new Date(toMs(seconds, nanos));
}

/**
 * In milliseconds, rounded down; undefined where none was given. A positive one below a millisecond is refused, for
 * rounded down it would be 0, which must be explicit.
 */
export function parseOverlap(message: Duration | undefined): number | undefined | ArgumentRefusal {
  if (!message) return undefined;
  const { seconds, nanos } = message;
  if (seconds === 0n && nanos === 0) return 0;
  return (
    parsePositive(message) ??
    refuseArgument(
      'OVERLAP_INVALID',
      'overlap',
      'overlap must be 0, or a valid Duration of 1 millisecond or more, with nanos from 0 to 999999999',
    )
  );
}

function parseExpireTime(message: Timestamp): Expiration | ArgumentRefusal {
  const time = parseTimestamp(message, 'expire_time');
  return isRefusal(time) ? time : { kind: 'at', time };
}

function parseTtl(message: Duration): Expiration | ArgumentRefusal {
  const ttlMs = parsePositive(message);
  if (ttlMs !== undefined) return { kind: 'after', ttlMs };
  return refuseArgument(
    'EXPIRATION_INVALID',
    'ttl',
    'ttl must be a valid Duration of 1 millisecond or more, with nanos from 0 to 999999999',
  );
}

/** A valid duration of 1 millisecond or more, in milliseconds; undefined: it is none. */
function parsePositive({ seconds, nanos }: Duration): number | undefined {
  if (seconds < 0n || seconds > DURATION_SECONDS_MAX || nanos < 0 || nanos > NANOS_MAX) return undefined;
  const ms = toMs(seconds, nanos);
  return ms === 0 ? undefined : ms;
}

function toMs(seconds: bigint, nanos: number): number {
  return Number(seconds) * 1000 + Math.floor(nanos / 1_000_000);
}
