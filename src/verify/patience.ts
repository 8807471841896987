/** Work that several wait for, each as long as its own deadline allows. */
import type { Deadline } from '../keys/clock.js';
import { StoreFault } from '../store/faults.js';
import { within } from '../within.js';

/**
 * Waits for the store's work until the deadline. The work goes on: others may wait for it.
 * @throws StoreFault where the deadline passes first, and what the work throws
 */
export function until<T>(deadline: Deadline, work: Promise<T>): Promise<T> {
  const late = () => new StoreFault('unavailable', 'the store did not answer in time');
  return within(deadline.remainingMs(), work, { late });
}

/** Resolves when the work has ended, however it did, or else when the deadline passes. */
export async function endedBy(deadline: Deadline, work: Promise<unknown>): Promise<void> {
  await until(deadline, work).catch(() => undefined);
}
