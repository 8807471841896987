import type { AuditEvent } from '../keys/event.js';
import type { OrganizationRef } from '../keys/organization.js';
import type { Entry } from './verify-chain.js';

/** Where the relay publishes events. */
export interface AuditSink extends AsyncDisposable {
  /** Tells its positions from another sink's: `file`, or `kafka/<topic>`. */
  readonly name: string;

  /**
   * The lane that an organization's events travel in. Within a lane one publishing follows the other, so that order
   * holds; lanes do not wait for one another.
   */
  laneOf(organization: OrganizationRef): number;

  /** How many bytes of events one publishing may carry. A single event always may. */
  readonly batchBytesMax: number;

  /**
   * Resolves once all events are where a crash, of this process or of what is behind the sink, cannot take them away.
   * Rejects with a `SinkFault`; then some of them may be there nevertheless, and publishing them again repeats those.
   * @param events of this lane, in order, not empty
   * @param timeoutMs rejects by then; a sink that cannot abandon a write (a local file) may take longer
   * @returns where the lane goes on behind them: an offset of the partition, or of the file in bytes
   */
  publish(lane: number, events: readonly AuditEvent[], timeoutMs: number): Promise<number>;
}

/** A sink whose events can be read again. */
export interface ReadableSink extends AuditSink {
  /** Only this replica writes into its file, so what lies there was an event. Into a topic anybody may write. */
  readonly kind: 'file' | 'topic';

  /** Whether it could be reached when it was opened. */
  readonly answered: boolean;

  /**
   * What lies behind these positions, by lane, up to where the sink ends now. A lane is read from its beginning where it
   * has no position, or one that it has never come to: then it is another than it was.
   * @throws SinkFault where it does not answer. The entries throw what reading them throws.
   */
  readFrom(positions: ReadonlyMap<number, number>): Promise<SinkReading>;
}

export interface SinkReading {
  /** Each lane's in order. A lane may begin somewhat before its position. To be gone through once. */
  readonly entries: AsyncIterable<Entry>;
  /** Up to where they go, by lane. */
  readonly ends: ReadonlyMap<number, number>;
  /** Whether there are none, as is known without reading. */
  readonly isEmpty: boolean;
}

export class SinkFault extends Error {
  override readonly name = 'SinkFault';

  /**
   * @param kind `unavailable`: away or slow, which passes. `refused`: the sink turns events down as things stand, and
   *   somebody has to change something.
   */
  constructor(
    readonly kind: 'unavailable' | 'refused',
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}
