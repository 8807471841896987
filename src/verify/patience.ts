/** Work that several wait for, each as long as its own deadline allows. */
import type { Deadline } from '../keys/clock.js';
import { StoreFault } from '../store/faults.js';

/**
 * Waits for the store's work until the deadline. The work goes on: others may wait for it.
 * @throws StoreFault where the deadline passes first, and what the work throws
 */
export async function until<T>(deadline: Deadline, work: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(
      () => reject(new StoreFault('unavailable', 'the store did not answer in time')),
      deadline.remainingMs(),
    );
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Resolves when the work has ended, however it did, or else when the deadline passes. */
export async function endedBy(deadline: Deadline, work: Promise<unknown>): Promise<void> {
  await until(deadline, work).catch(() => undefined);
}
