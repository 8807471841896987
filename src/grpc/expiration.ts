import type { Duration } from '../gen/google/protobuf/duration.js';
import type { Timestamp } from '../gen/google/protobuf/timestamp.js';
import type { Expiration } from '../keys/expiration.js';
import { type ArgumentRefusal, refuseArgument } from '../keys/refusal.js';

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

function parseExpireTime({ seconds, nanos }: Timestamp): Expiration | ArgumentRefusal {
  if (seconds < TIMESTAMP_SECONDS_MIN || seconds > TIMESTAMP_SECONDS_MAX || nanos < 0 || nanos > NANOS_MAX) {
    return refuseArgument(
      'EXPIRATION_INVALID',
      'expire_time',
      'expire_time must be a valid Timestamp: before the year 10000, nanos from 0 to 999999999',
    );
  }
  return { kind: 'at', time: new Date(toMs(seconds, nanos)) };
}

function parseTtl({ seconds, nanos }: Duration): Expiration | ArgumentRefusal {
  const ttlMs = toMs(seconds, nanos);
  if (seconds < 0n || seconds > DURATION_SECONDS_MAX || nanos < 0 || nanos > NANOS_MAX || ttlMs === 0) {
    return refuseArgument(
      'EXPIRATION_INVALID',
      'ttl',
      'ttl must be a valid Duration of 1 millisecond or more, with nanos from 0 to 999999999',
    );
  }
  return { kind: 'after', ttlMs };
}

function toMs(seconds: bigint, nanos: number): number {
  return Number(seconds) * 1000 + Math.floor(nanos / 1_000_000);
}
