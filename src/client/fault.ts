/**
 * A call that came to no answer: the service is away, was too slow, or broke. It is never a "no" to what was asked. A
 * change may have been carried out all the same; repeating it with `requestId` finds out, and makes nothing twice.
 */
export class ServiceFault extends Error {
  override readonly name = 'ServiceFault';
  /** The gRPC status: `UNAVAILABLE`, `DEADLINE_EXCEEDED`, `INTERNAL` … */
  readonly code: string;
  /** The service's own word (`STORE_UNAVAILABLE`, `OVERLOADED`), or `CLIENT_CLOSED`. Absent: the transport failed. */
  readonly reason?: string;
  /** How long the service asks to be left alone. */
  readonly retryAfterMs?: number;
  /** Under which the change was asked for. Absent: it was no change. */
  readonly requestId?: string;

  constructor(code: string, message: string, { cause, ...facts }: Facts & { readonly cause?: unknown } = {}) {
    super(`${facts.reason ?? code}: ${message}`, { cause });
    this.code = code;
    Object.assign(this, facts);
  }

  /** The same, of a change. */
  of(requestId: string): this {
    Object.assign(this, { requestId });
    return this;
  }
}

interface Facts {
  readonly reason?: string;
  readonly retryAfterMs?: number;
}

/**
 * What an answer always has.
 * @throws ServiceFault where it has not
 */
export function given<Part>(part: Part | undefined): Part {
  if (part === undefined) throw new ServiceFault('INTERNAL', 'the service left out a part of its answer');
  return part;
}
