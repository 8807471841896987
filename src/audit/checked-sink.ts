/**
 * A store that was put back to an earlier state accepts keys that were revoked since. The sink still tells of them: so a
 * start compares the store with what the sink holds beyond the position that the store remembers, and publishes nothing
 * before that has been done.
 */
import type { Logger } from 'pino';

import { counted } from '../counted.js';
import { type Clock, Deadline } from '../keys/clock.js';
import type { AuditEvent } from '../keys/event.js';
import type { OrganizationRef } from '../keys/organization.js';
import { within } from '../within.js';
import { Bell } from './bell.js';
import { FaultLog } from './fault-log.js';
import { findLost, type Found, whereUnreadable } from './find-lost.js';
import type { Outbox } from './outbox.js';
import type { EventStore } from './read-store.js';
import type { Store } from '../store/port.js';
import { type AuditSink, type ReadableSink, SinkFault } from './sink.js';

/** The sink has what the store lacks, or may lack. Waiting does not mend it, and the store must not be served from. */
export class StoreBehind extends Error {
  override readonly name = 'StoreBehind';

  constructor(sink: string, { organizations, unreadable }: Pick<Found, 'organizations' | 'unreadable'>) {
    const events = organizations.reduce((sum, { count }) => sum + count, 0);
    super(
      events > 0
        ? `the audit sink (${sink}) holds ${counted(events, 'event')} of ${counted(organizations.length, 'organization')}` +
            `${events < LOST_MAX ? '' : ', and perhaps more,'} ` +
            'that the store lacks: it was put back to an earlier state, and may accept keys that were revoked since; ' +
            'keyreeve reconcile says what is missing, and with --apply revokes them again'
        : `the audit sink (${sink}) was damaged since the store last knew of it: ${whereUnreadable(unreadable)} cannot ` +
            'be read, and may have been an event that the store lacks, such as a revocation; keyreeve reconcile says ' +
            'what can be told, and docs/restoring.md what to do',
    );
  }
}

export interface CheckedSink {
  /** Takes nothing before the store is known to have all that the sink holds. */
  readonly sink: AuditSink;
  /** Rejects with `StoreBehind` where a check that had to wait for the sink finds that out. Never resolves. */
  readonly broken: Promise<never>;
}

export interface CheckedSinkParts {
  readonly sink: ReadableSink;
  readonly store: Pick<EventStore, 'listEvents'> &
    Pick<Store, 'ping'> & { readonly outbox: Pick<Outbox, 'positions' | 'remember'> };
  /** The installation's: events of others are not looked for. */
  readonly source: string;
  readonly clock: Clock;
  readonly log: Logger;
}

/** Enough to know: `keyreeve reconcile` tells of all. */
const LOST_MAX = 10_000;
const TRY_AGAIN_MS = 5000;
const PING_MS = 5000;
const NOT_YET = 'audit check: the store was not compared with the sink yet, it is tried again';
const TELL_MS = 5000;

/**
 * Checks the store against the sink. Where the sink does not answer, that is done as soon as it does.
 * @throws StoreBehind, StoreFault, or a SinkFault that waiting does not mend
 */
export async function openCheckedSink(parts: CheckedSinkParts): Promise<CheckedSink> {
  const sink = new Checked(parts);
  try {
    await sink.open();
  } catch (error) {
    await sink[Symbol.asyncDispose]();
    throw error;
  }
  return { sink, broken: sink.broken };
}

class Checked implements AuditSink {
  readonly broken: Promise<never>;
  readonly #parts: CheckedSinkParts;
  readonly #bell = new Bell();
  readonly #faults: FaultLog;
  #break: (error: StoreBehind) => void = () => undefined;
  #state: 'unchecked' | 'good' | 'behind' = 'unchecked';
  #checking: Promise<void> | undefined;
  #later = Promise.resolve();
  #over = false;
  #missingTold = false;

  constructor(parts: CheckedSinkParts) {
    this.#parts = parts;
    this.#faults = new FaultLog(parts.clock, parts.log);
    this.broken = new Promise((_, reject) => {
      this.#break = reject;
    });
    // Whoever awaits it learns of it; while nobody does, the rejection of `open` tells the same.
    this.broken.catch(() => undefined);
  }

  get name(): string {
    return this.#parts.sink.name;
  }

  get batchBytesMax(): number {
    return this.#parts.sink.batchBytesMax;
  }

  laneOf(organization: OrganizationRef): number {
    return this.#parts.sink.laneOf(organization);
  }

  async open(): Promise<void> {
    try {
      if (this.#parts.sink.answered) await this.#check();
    } catch (error) {
      if (!(error instanceof SinkFault) || error.kind === 'refused') throw error;
      this.#parts.log.error(
        { err: error },
        'audit check: the sink does not answer; nothing is published until it does',
      );
    }
    if (this.#state === 'unchecked') this.#later = this.#checkLater();
  }

  async publish(lane: number, events: readonly AuditEvent[], timeoutMs: number): Promise<number> {
    const deadline = Deadline.after(timeoutMs, this.#parts.clock);
    if (this.#state !== 'good') await within(timeoutMs, this.#check());
    return this.#parts.sink.publish(lane, events, deadline.remainingMs());
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#over = true;
    this.#bell.ring();
    await Promise.all([this.#parts.sink[Symbol.asyncDispose](), this.#later]);
  }

  /** Without it, a replica that has nothing to publish would go on serving from a store that was put back. */
  async #checkLater(): Promise<void> {
    for (;;) {
      await this.#bell.rest(TRY_AGAIN_MS);
      if (this.#over || this.#state !== 'unchecked') return;
      await this.#check().catch((error: unknown) => {
        this.#faults.tell('warn', NOT_YET, { err: error });
      });
    }
  }

  /** Lanes that ask at the same time share one. */
  #check(): Promise<void> {
    if (this.#state === 'behind') return Promise.reject(new SinkFault('refused', 'the store lacks events of the sink'));
    if (this.#state === 'good') return Promise.resolve();
    this.#checking ??= this.#compare().finally(() => {
      this.#checking = undefined;
    });
    return this.#checking;
  }

  /** @param isSure whether the store has just shown that it is not one that others have gone on without */
  async #compare(isSure = false): Promise<void> {
    const { sink, store, source, clock, log } = this.#parts;
    // Before the sink's ends are asked for: another replica may publish meanwhile, and a position beyond an end counts
    // as none.
    const positions = await store.outbox.positions(sink.name);
    const { entries, ends, isEmpty } = await sink.readFrom(positions);
    this.#tellOfMissing(positions, ends);
    if (!isEmpty) {
      const search = { source, clock, lostMax: LOST_MAX, onProgress: this.#teller() };
      const found = await findLost(this.#untilOver(entries), store, search);
      if (found.organizations.length > 0 && !isSure) {
        // A primary that was deposed and does not know it lacks what was published since.
        await store.ping(Deadline.after(PING_MS, clock));
        return this.#compare(true);
      }
      if (found.unreadable.count > 0) {
        log.warn(
          found.unreadable,
          'audit check: some of what the sink holds cannot be read: it is no event, or damaged',
        );
      }
      // Whoever may write to the topic could keep every replica from starting.
      if (found.organizations.length > 0 || (sink.kind === 'file' && found.unreadable.count > 0)) {
        this.#state = 'behind';
        const behind = new StoreBehind(sink.name, found);
        log.error({ err: behind }, 'audit check: the store must not be served from, this replica ends');
        this.#break(behind);
        throw behind;
      }
      if (found.events > 1) log.info({ events: found.events }, 'audit check: the store has all that was published');
    }
    await store.outbox.remember([...ends].map(([lane, end]) => ({ sink: sink.name, lane, end })));
    this.#state = 'good';
  }

  /** No reason not to serve: a file that was rotated is shorter, too. */
  #tellOfMissing(positions: ReadonlyMap<number, number>, ends: ReadonlyMap<number, number>): void {
    if (this.#missingTold) return;
    const lanes = [...positions].flatMap(([lane, remembered]) => {
      const end = ends.get(lane) ?? 0;
      return end < remembered ? [{ lane, remembered, end }] : [];
    });
    if (lanes.length === 0) return;
    this.#missingTold = true;
    const missing = lanes.reduce((sum, { remembered, end }) => sum + remembered - end, 0);
    if (this.#parts.sink.kind === 'file') {
      this.#parts.log.error(
        { bytes: missing, lanes },
        'audit check: events that were published are not in the audit file any more: it was rotated, truncated or ' +
          'removed; see what is left with keyreeve audit verify --store, and --file with --against store',
      );
    } else {
      this.#parts.log.error(
        { offsets: missing, lanes },
        'audit check: events that were published are not in the audit topic any more: it was made anew, or lost its ' +
          'end; see what is left with keyreeve audit verify --store, and --topic with --against store',
      );
    }
  }

  async *#untilOver<T>(entries: AsyncIterable<T>): AsyncGenerator<T> {
    for await (const entry of entries) {
      if (this.#over) throw new SinkFault('unavailable', 'the sink is closed');
      yield entry;
    }
  }

  #teller() {
    const { clock, log } = this.#parts;
    let toldMs = clock.monotonicMs();
    return (progress: { readonly events: number; readonly share?: number }) => {
      if (clock.monotonicMs() - toldMs < TELL_MS) return;
      toldMs = clock.monotonicMs();
      log.info(progress, 'audit check: reading what was published since the last position that is remembered');
    };
  }
}
