import { z } from 'zod';

import { durationMs } from '../../config/duration.js';
import type { Duration } from '../../gen/google/protobuf/duration.js';
import type { Timestamp } from '../../gen/google/protobuf/timestamp.js';
import { UsageFault } from '../faults.js';

const rfc3339 = z.iso.datetime({ offset: true });
const duration = durationMs({ positive: true });
const durationOrZero = durationMs({ positive: false });

/** @throws UsageFault */
export function parseTime(text: string): Timestamp {
  if (!rfc3339.safeParse(text).success) {
    throw new UsageFault('expected a time as in RFC 3339, such as 2027-01-01T00:00:00Z');
  }
  const ms = new Date(text).getTime();
  const seconds = Math.floor(ms / 1000);
  return { seconds: BigInt(seconds), nanos: (ms - seconds * 1000) * 1_000_000 };
}

/** @throws UsageFault */
export function parseDurationMs(text: string): number {
  const parsed = duration.safeParse(text);
  if (!parsed.success) throw new UsageFault('expected a duration above 0 such as 30d, 12h, 5m or 30s');
  return parsed.data;
}

/** @throws UsageFault */
export function parseDurationOrZeroMs(text: string): number {
  const parsed = durationOrZero.safeParse(text);
  if (!parsed.success) throw new UsageFault('expected 0 or a duration such as 30d, 12h, 5m or 30s');
  return parsed.data;
}

export function toDuration(ms: number): Duration {
  const seconds = Math.floor(ms / 1000);
  return { seconds: BigInt(seconds), nanos: (ms - seconds * 1000) * 1_000_000 };
}

export function toMs({ seconds, nanos }: Duration): number {
  return Number(seconds) * 1000 + nanos / 1_000_000;
}

/** RFC 3339 in UTC with milliseconds, for programs. */
export function toIso({ seconds, nanos }: Timestamp): string {
  return new Date(Number(seconds) * 1000 + Math.floor(nanos / 1_000_000)).toISOString();
}

/** RFC 3339 in UTC to the second, for people. */
export function toShortTime(timestamp: Timestamp): string {
  return toIso(timestamp).replace(/\.\d+Z$/, 'Z');
}
