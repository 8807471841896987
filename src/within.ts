/** The work has not ended in time. It may end later, and nobody waits for it any more. */
export class TookTooLong extends Error {
  override readonly name = 'TookTooLong';

  constructor(ms: number) {
    super(`no answer within ${Math.round(ms)} ms`);
  }
}

export interface Impatience {
  /** Ends the waiting at once. */
  readonly signal?: AbortSignal | undefined;
  /** What is thrown where the time is over. Absent: `TookTooLong`. */
  readonly late?: () => Error;
}

/**
 * Waits for work that cannot be called off, but not for ever.
 * @throws what `late` makes, the signal's reason, or what the work throws
 */
export async function within<T>(
  ms: number,
  work: Promise<T>,
  { signal, late = () => new TookTooLong(ms) }: Impatience = {},
): Promise<T> {
  const { promise: ended, reject } = withoutWork();
  const timer = setTimeout(() => reject(late()), ms);
  const abort = () => reject(signal?.reason);
  signal?.addEventListener('abort', abort);
  if (signal?.aborted) abort();
  try {
    return await Promise.race([work, ended]);
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', abort);
  }
}

function withoutWork(): { promise: Promise<never>; reject: (reason: unknown) => void } {
  let reject: (reason: unknown) => void = () => undefined;
  const promise = new Promise<never>((_, rejected) => {
    reject = rejected;
  });
  return { promise, reject };
}
