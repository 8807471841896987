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
export function within<T>(
  ms: number,
  work: Promise<T>,
  { signal, late = () => new TookTooLong(ms) }: Impatience = {},
): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => giveUp(late()), ms);
    const abort = () => giveUp(signal?.reason as Error);
    signal?.addEventListener('abort', abort);
    if (signal?.aborted) abort();
    work.then((answer) => {
      end();
      resolve(answer);
    }, giveUp);

    function giveUp(reason: Error): void {
      end();
      reject(reason);
    }
    function end(): void {
      clearTimeout(timer);
      signal?.removeEventListener('abort', abort);
    }
  });
}
