/**
 * Which replica publishes. The record says who holds the leadership and counts its renewals; who has seen the same
 * record stand still for long enough takes it over. Each replica measures on its own monotonic clock, and no two
 * clocks are compared.
 *
 * The relay does not need it for order: it publishes an event only after the one before it is in the sink, so whatever
 * two leaders do, an event's first copy follows the first copy of its predecessor. The leadership keeps replicas from
 * repeating each other's work.
 */
import { randomUUID } from 'node:crypto';

import type { Clock } from '../keys/clock.js';
import type { Leadership, Outbox } from './outbox.js';

/** How long a renewal holds, from the moment noted before it was written. */
export const LEADERSHIP_MS = 5000;

/**
 * How long a record must stand still before another takes over. It exceeds the holder's right by a fifth, far more than
 * two clocks drift apart in that time.
 */
export const PATIENCE_MS = 6000;

/** Three renewals may fail, or one may take 3.5 s, before the right runs out. */
export const RENEW_MS = 1500;

/** How often the others look: a holder that left is followed within this time, one that crashed 6 to 6.5 s later. */
export const OBSERVE_MS = 500;

export class LeadershipClaim {
  /** New at each start: a restarted replica is another holder. */
  readonly #holder = randomUUID();
  readonly #outbox: Pick<Outbox, 'readLeadership' | 'replaceLeadership'>;
  readonly #clock: Clock;
  #endMs = Number.NEGATIVE_INFINITY;
  #seen: { readonly record: Leadership; readonly sinceMs: number } | undefined;

  constructor(outbox: Pick<Outbox, 'readLeadership' | 'replaceLeadership'>, clock: Clock) {
    this.#outbox = outbox;
    this.#clock = clock;
  }

  /** How long this replica may still publish; 0 while it does not lead. */
  get remainingMs(): number {
    return Math.max(0, this.#endMs - this.#clock.monotonicMs());
  }

  /**
   * Looks at the record and renews, takes over or goes on waiting. One call at a time.
   * @throws what the store throws; then the right just runs on to its end, and a write that may have happened is found
   *   by the next look
   */
  async renew(): Promise<void> {
    const notedMs = this.#clock.monotonicMs();
    const record = await this.#outbox.readLeadership();
    if (record && record.holder !== this.#holder && record.holder !== '') {
      this.#endMs = Number.NEGATIVE_INFINITY;
      if (!this.#hasStoodStill(record)) return;
    }
    const next = { holder: this.#holder, count: (record?.count ?? 0) + 1 };
    if (await this.#outbox.replaceLeadership(record, next)) this.#endMs = notedMs + LEADERSHIP_MS;
  }

  /** Leaves the leadership to whoever looks next. Nothing may be published afterwards. */
  async resign(): Promise<void> {
    this.#endMs = Number.NEGATIVE_INFINITY;
    const record = await this.#outbox.readLeadership();
    if (record?.holder !== this.#holder) return;
    await this.#outbox.replaceLeadership(record, { holder: '', count: record.count + 1 });
  }

  #hasStoodStill(record: Leadership): boolean {
    const nowMs = this.#clock.monotonicMs();
    const { record: before, sinceMs } = this.#seen ?? {};
    if (sinceMs === undefined || before?.holder !== record.holder || before.count !== record.count) {
      this.#seen = { record, sinceMs: nowMs };
      return false;
    }
    return nowMs - sinceMs >= PATIENCE_MS;
  }
}
