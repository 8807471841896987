/** Which trace a call belongs to, as its caller says: https://www.w3.org/TR/trace-context-1/#traceparent-header */
export interface Trace {
  /** As it came. */
  readonly traceparent: string;
  /** 32 lowercase hex digits, not all of them 0. */
  readonly traceId: string;
  /** 16 lowercase hex digits, not all of them 0: the caller's span. */
  readonly spanId: string;
}

// Of another version it is not known what a part means.
const VERSION_00 = /^00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}$/;

/**
 * @param stated the values of `traceparent`, however many came
 * @returns undefined where there is none, there are several, or it is none: no call fails for its trace
 */
export function readTrace(stated: readonly unknown[]): Trace | undefined {
  const [text, ...more] = stated;
  if (typeof text !== 'string' || more.length > 0) return undefined;
  const [traceparent, traceId, spanId] = VERSION_00.exec(text) ?? [];
  return traceparent !== undefined && traceId !== undefined && spanId !== undefined
    ? { traceparent, traceId, spanId }
    : undefined;
}
