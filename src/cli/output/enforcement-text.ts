import type { Enforcement } from '../../gen/keyreeve/v1/enforcement.js';
import { toIso, toShortTime } from './times.js';

/** What a call took away, in the words of its command. */
export interface TakenAway {
  /** Completes "no replica accepts …". */
  readonly what: string;
  /** How to wait for it: completes "…; … to wait for it". */
  readonly again: string;
}

/** Whether what was taken away is out of use everywhere, or when it will be: a line each. */
export function describeEnforcement(
  { complete, completeByTime, cachesClearTime }: Enforcement,
  { what, again }: TakenAway,
  now: Date,
): string[] {
  const lines = [];
  if (complete) lines.push(`Enforcement: complete. From now on no replica accepts ${what}.`);
  else {
    const time = completeByTime ? toShortTime(completeByTime) : 'a time that the service does not tell';
    lines.push(`Enforcement: complete by ${time}. Until then a replica may accept ${what}; ${again} to wait for it.`);
  }
  if (cachesClearTime && toIso(cachesClearTime) > now.toISOString()) {
    lines.push(`Callers may act on an answer that they were allowed to keep until ${toShortTime(cachesClearTime)}.`);
  }
  return lines;
}
