/** Whether a call that failed is made again, and when. */
import type { ServiceFault } from './fault.js';

type Fault = Pick<ServiceFault, 'code' | 'reason' | 'retryAfterMs'>;

const BACKOFF_MS_FIRST = 20;
const BACKOFF_MS_MAX = 1000;

/**
 * How long to wait before the next try; undefined: there is none. What the service could not answer, or not in time, is
 * tried again, and nothing else. All calls are safe to repeat: reads are, and every change has a request id.
 * @param tries how many there have been
 * @param fit whether there is a replica that has not just failed
 */
export function waitBeforeRetry(
  fault: Fault,
  tries: number,
  fit: boolean,
  random: () => number = Math.random,
): number | undefined {
  if (!RETRIED.includes(fault.code)) return undefined;
  const backoffMs = random() * Math.min(BACKOFF_MS_MAX, BACKOFF_MS_FIRST * 2 ** (tries - 1));
  // It is the replica which failed that asks to be left alone.
  return isOfReplica(fault) && fit ? backoffMs : (fault.retryAfterMs ?? 0) + backoffMs;
}

/** Whether the fault is the replica's that was asked, so that another may do better. */
export function isOfReplica({ code, reason }: Fault): boolean {
  // The audit is as far behind for all of them.
  return RETRIED.includes(code) && reason !== 'AUDIT_BACKLOG';
}

const RETRIED: readonly string[] = ['UNAVAILABLE', 'DEADLINE_EXCEEDED'];
