import type { AuditEvent } from '../keys/event.js';
import type { OrganizationRef } from '../keys/organization.js';

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
