import type { AuditEvent } from '../keys/event.js';
import type { OrganizationRef } from '../keys/organization.js';

/** Events that were committed and perhaps not yet published. Bookkeeping: nothing here makes an event. */
export interface Outbox {
  /**
   * Unpublished events as of one moment, each organization's in order and without a gap, organizations mixed by time.
   * An event is never answered before an earlier one of its organization that is unpublished, nor without it.
   * @param wanted organizations for which it answers false are passed over before the limit counts: what cannot be
   *   published now must not hide what can. Absent: all.
   */
  pending(limit: number, wanted?: (organization: OrganizationRef) => boolean): Promise<AuditEvent[]>;

  /**
   * Marks them published, and remembers how far the sink has come with them, if that is further than was known. They
   * stay in the store.
   */
  markPublished(events: readonly AuditEvent[], reached: SinkPosition): Promise<void>;

  /** How far a sink has come, as far as is remembered, by lane. */
  positions(sink: string): Promise<ReadonlyMap<number, number>>;

  /** Remembers these positions instead of what was known of their lanes, further or not: a sink may have begun anew. */
  remember(positions: readonly SinkPosition[]): Promise<void>;

  /** How many events are unpublished, counted up to `limit`, and the time of the oldest. */
  backlog(limit: number): Promise<Backlog>;

  /** Calls the listener after each change with events that this process commits. Answers how to stop that. */
  onCommit(listener: () => void): () => void;

  /** The record by which replicas agree who publishes; absent before the first. */
  readLeadership(): Promise<Leadership | undefined>;

  /** Replaces the leadership record if it is still `expected`; answers whether it was. */
  replaceLeadership(expected: Leadership | undefined, next: Leadership): Promise<boolean>;
}

/** Everything before it in its lane of its sink is, or was, in the store. */
export interface SinkPosition {
  /** `AuditSink.name`. */
  readonly sink: string;
  readonly lane: number;
  /** Where the next event would begin: an offset of a partition, or of a file in bytes. */
  readonly end: number;
}

export interface Backlog {
  readonly depth: number;
  readonly oldestTime?: Date;
}

export interface Leadership {
  /** The replica's id, new at each start. */
  readonly holder: string;
  /** Counts renewals and changes of hands: a number that stands still is a holder that is gone. */
  readonly count: number;
}
