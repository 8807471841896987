import type { Keyspace } from './keyspace.js';
import { type ArgumentRefusal, refuseArgument } from './refusal.js';

/** When a key is to end, as a request says it. */
export type Expiration =
  | { readonly kind: 'default' }
  | { readonly kind: 'at'; readonly time: Date }
  | { readonly kind: 'after'; readonly ttlMs: number };

/** When a key that is made now ends; undefined: never. */
export function expireTimeFor(
  expiration: Expiration,
  keyspace: Keyspace,
  now: Date,
): Date | undefined | ArgumentRefusal {
  const { defaultMs, maxMs } = keyspace.expiration;
  const field = expiration.kind === 'after' ? 'ttl' : 'expire_time';
  const time = timeOf(expiration, defaultMs ?? maxMs, now);
  return time && judgeExpireTime(time, { field, now, within: { keyspace, createTime: now } });
}

/**
 * Whether a key may end at that time. Answers the time.
 * @param within the keyspace whose longest lifetime holds for it, from when it was made. Absent: any lifetime will do
 */
export function judgeExpireTime(
  time: Date,
  { field, now, within }: { field: string; now: Date; within?: { keyspace: Keyspace; createTime: Date } },
): Date | ArgumentRefusal {
  const maxMs = within?.keyspace.expiration.maxMs;
  const refuse = (message: string) => refuseArgument('EXPIRATION_INVALID', field, `${field} must ${message}`);
  if (!(time > now)) return refuse('lie in the future');
  if (time > LATEST_TIME) return refuse('lie before the year 10000');
  if (within && maxMs !== undefined && time.getTime() - within.createTime.getTime() > maxMs) {
    return refuse(`lie at most ${maxMs / 1000} seconds after the key's create_time in this keyspace`);
  }
  return time;
}

/** Whether a key may be without an end. Answers nothing where it may. */
export function judgeEndless({ expiration }: Keyspace, field = 'expire_time'): ArgumentRefusal | undefined {
  if (expiration.maxMs === undefined) return undefined;
  return refuseArgument('EXPIRATION_INVALID', field, `${field} is required in this keyspace`);
}

/** RFC 3339 and google.protobuf.Timestamp end there. */
export const LATEST_TIME = new Date('9999-12-31T23:59:59.999Z');

function timeOf(expiration: Expiration, defaultMs: number | undefined, now: Date): Date | undefined {
  switch (expiration.kind) {
    case 'at':
      return expiration.time;
    case 'after':
      return new Date(Math.min(now.getTime() + expiration.ttlMs, 8.64e15));
    case 'default':
      return defaultMs === undefined ? undefined : new Date(now.getTime() + defaultMs);
  }
}
