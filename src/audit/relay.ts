/**
 * Moves the outbox to the sink: reads what is pending, publishes it lane by lane, marks it published.
 *
 * Publish, then mark: a crash in between repeats events, which consumers drop by sequence; the other order would lose
 * them. A publishing whose outcome is unknown counts as failed and is repeated. In a lane the next one begins only
 * after the one before is marked, so no event gets ahead of its predecessor.
 */
import type { Logger } from 'pino';

import { type Clock, Deadline } from '../keys/clock.js';
import type { AuditEvent } from '../keys/event.js';
import type { OrganizationRef } from '../keys/organization.js';
import { within } from '../within.js';
import { BacklogWatch } from './backlog.js';
import { Bell } from './bell.js';
import { FaultLog } from './fault-log.js';
import { Lane } from './lane.js';
import { LeadershipClaim, OBSERVE_MS, RENEW_MS } from './leadership.js';
import type { Backlog, Outbox, SinkPosition } from './outbox.js';
import { type AuditSink, SinkFault } from './sink.js';

export interface RelayParts {
  readonly outbox: Outbox;
  /** The relay owns it from here on, and disposes it. */
  readonly sink: AuditSink;
  /** How many unpublished events are too many. */
  readonly backlogMax: number;
  readonly clock: Clock;
  readonly log: Logger;
}

/**
 * Disposing it publishes what is pending, if this replica leads and the sink answers, gives up the leadership and closes
 * the sink: within `RELAY_STOP_MS`, whatever store and sink do. What is left over stays pending. Dispose it before the
 * store.
 */
export interface Relay extends AsyncDisposable {
  readonly backlog: Backlog;
  readonly standing: RelayStanding;
  /** Whether so much is unpublished that what can wait must be refused. The same on every replica, within seconds. */
  backlogExceeded(): boolean;
}

export interface RelayStanding {
  /** Whether this replica publishes. */
  readonly leads: boolean;
  /** Events that it has published since its start, repeats included. */
  readonly published: number;
  /** Publishings of several events each that failed since, by what the sink was. */
  readonly faults: Readonly<Record<SinkFault['kind'], number>>;
}

/** Another process may commit, which rings no bell here. */
const POLL_MS = 200;
/** However slow the store was once, it is read again within this time. */
const PACED_MS_MAX = 5000;
const PAGE_EVENTS = 1000;
const BATCH_EVENTS = 500;
/** What an event takes beside its text: key, header, record fields. */
const EVENT_OVERHEAD_BYTES = 512;

const SEND_MS = 4000;
/** With less time than this a sending is not begun: it would mostly fail. */
const SEND_MS_MIN = 500;
/** A sending ends this long before the leadership. */
const SEND_MARGIN_MS = 200;

const MARK_REST_MS = 500;
const START_MS = 2000;
const FLUSH_MS = 2000;
const RESIGN_MS = 500;
const CLOSE_MS = 1000;
export const RELAY_STOP_MS = FLUSH_MS + RESIGN_MS + CLOSE_MS;

const SINK_AWAY = 'audit relay: the sink takes no events, they are kept and tried again';
const SINK_REFUSES = 'audit relay: the sink refuses events, nothing is published there until this is put right';
const CANNOT_READ = 'audit relay: cannot read what is pending';
const CANNOT_MARK = 'audit relay: cannot mark what is published';
const CANNOT_LEAD = 'audit relay: cannot read or renew the leadership';
const CANNOT_COUNT = 'audit relay: cannot count the backlog';

/** Resolves after a first look at backlog and leadership. A store that is away then is not waited for. */
export async function startRelay(parts: RelayParts): Promise<Relay> {
  const relay = new RunningRelay(parts);
  await relay.start();
  return relay;
}

class RunningRelay implements Relay {
  readonly #outbox: Outbox;
  readonly #sink: AuditSink;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #claim: LeadershipClaim;
  readonly #watch: BacklogWatch;
  readonly #faults: FaultLog;
  readonly #lanes = new Map<number, Lane>();
  readonly #deliveries = new Set<Promise<void>>();
  readonly #bells = { publish: new Bell(), lead: new Bell(), watch: new Bell() };
  readonly #unsubscribe: () => void;
  #leads = false;
  #published = 0;
  readonly #sinkFaults = { unavailable: 0, refused: 0 };
  /** What was read could not be sent: then reading again at each commit would only cost. */
  #paced = false;
  #searchDueMs = Number.NEGATIVE_INFINITY;
  #publishing = Promise.resolve();
  #leading = Promise.resolve();
  #watching = Promise.resolve();
  /** Set when the relay is told to stop: until when it goes on publishing. */
  #flush: Deadline | undefined;
  #over = false;
  #stopped: Promise<void> | undefined;

  constructor({ outbox, sink, backlogMax, clock, log }: RelayParts) {
    this.#outbox = outbox;
    this.#sink = sink;
    this.#clock = clock;
    this.#log = log;
    this.#claim = new LeadershipClaim(outbox, clock);
    this.#watch = new BacklogWatch(outbox, backlogMax, clock, log);
    this.#faults = new FaultLog(clock, log);
    this.#unsubscribe = outbox.onCommit(() => {
      if (!this.#paced) this.#bells.publish.ring();
    });
  }

  get backlog(): Backlog {
    return this.#watch.current;
  }

  get standing(): RelayStanding {
    return { leads: this.#claim.remainingMs > 0, published: this.#published, faults: { ...this.#sinkFaults } };
  }

  backlogExceeded(): boolean {
    return this.#watch.exceeded;
  }

  async start(): Promise<void> {
    const renewed = this.#renew();
    const looked = this.#look();
    this.#leading = renewed.then(() => this.#leadLoop());
    this.#watching = looked.then(() => this.#watchLoop());
    this.#publishing = this.#publishLoop();
    await this.#bound(START_MS, Promise.all([renewed, looked]), 'audit relay: the store answers late');
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#stopped ??= this.#stop();
    return this.#stopped;
  }

  async #stop(): Promise<void> {
    this.#unsubscribe();
    this.#flush = Deadline.after(FLUSH_MS, this.#clock);
    for (const lane of this.#lanes.values()) lane.hurry();
    this.#bells.publish.ring();
    await this.#bound(FLUSH_MS, this.#publishing, 'audit relay: stopped with a sending under way');

    this.#over = true;
    for (const bell of Object.values(this.#bells)) bell.ring();
    await this.#bound(RESIGN_MS, this.#resign(), 'audit relay: could not give up the leadership, another waits for it');
    await this.#bound(
      CLOSE_MS,
      Promise.resolve(this.#sink[Symbol.asyncDispose]()),
      'audit relay: the sink did not close',
    );
  }

  async #resign(): Promise<void> {
    // A renewal under way would take back what is given up.
    await Promise.all([this.#leading, this.#watching]);
    await this.#claim.resign();
  }

  async #bound(ms: number, work: Promise<unknown>, otherwise: string): Promise<void> {
    try {
      await within(ms, work);
    } catch (error) {
      this.#log.warn({ err: error }, otherwise);
    }
  }

  async #leadLoop(): Promise<void> {
    for (;;) {
      await this.#bells.lead.rest(this.#leads ? RENEW_MS : OBSERVE_MS);
      if (this.#over) return;
      await this.#renew();
    }
  }

  async #renew(): Promise<void> {
    await this.#try(CANNOT_LEAD, () => this.#claim.renew());
    const leads = this.#claim.remainingMs > 0;
    if (leads && !this.#leads) {
      this.#log.info('audit relay: this replica publishes from now on');
      this.#bells.publish.ring();
    }
    if (!leads && this.#leads) this.#log.warn('audit relay: this replica publishes no more, its leadership has ended');
    this.#leads = leads;
  }

  async #watchLoop(): Promise<void> {
    for (;;) {
      await this.#bells.watch.rest(this.#watch.restMs);
      if (this.#over) return;
      await this.#look();
    }
  }

  async #look(): Promise<void> {
    await this.#try(CANNOT_COUNT, () => this.#watch.look());
  }

  async #publishLoop(): Promise<void> {
    while (!this.#over) {
      const flush = this.#flush;
      const { started, restMs } = await this.#pass();
      // In a flush, what cannot be started now has failed or is not ours: it stays pending.
      if (flush && (flush.passed || (started === 0 && this.#deliveries.size === 0))) break;
      await this.#bells.publish.rest(restMs);
    }
    await Promise.all(this.#deliveries);
  }

  /** Reads what is pending and starts a delivery for each lane that is free. */
  async #pass(): Promise<{ started: number; restMs: number }> {
    this.#paced = false;
    if (this.#sendMs() < SEND_MS_MIN) return { started: 0, restMs: POLL_MS };
    const beganMs = this.#clock.monotonicMs();
    const read = await this.#try(CANNOT_READ, () => this.#readAndStart());
    if (!read) return { started: 0, restMs: POLL_MS };
    let { started } = read;
    if (read.found === PAGE_EVENTS && started === 0) started = await this.#search();
    this.#paced = read.found > 0 && started === 0;
    if (this.#paced) {
      const tookMs = this.#clock.monotonicMs() - beganMs;
      return { started, restMs: Math.min(PACED_MS_MAX, Math.max(POLL_MS, 20 * tookMs)) };
    }
    return { started, restMs: read.found === PAGE_EVENTS ? 0 : POLL_MS };
  }

  /**
   * Looks past events whose lanes are not free, which fill the page. The store may have to go through all of them, so
   * this takes a twentieth of the time at most, and less where it finds nothing.
   */
  async #search(): Promise<number> {
    const beganMs = this.#clock.monotonicMs();
    if (beganMs < this.#searchDueMs) return 0;
    const read = await this.#try(CANNOT_READ, () => this.#readAndStart({ pastBlocked: true }));
    const started = read?.started ?? 0;
    const nowMs = this.#clock.monotonicMs();
    const tookMs = nowMs - beganMs;
    this.#searchDueMs = nowMs + (started > 0 ? 20 * tookMs : Math.max(5000, 50 * tookMs));
    return started;
  }

  async #readAndStart({ pastBlocked = false } = {}): Promise<{ found: number; started: number }> {
    // Taken before reading. A lane that becomes free meanwhile must not be given what was read: it may be published by
    // now, and events before it may have been passed over.
    const blocked = new Set([...this.#lanes].filter(([, lane]) => !lane.ready).map(([number]) => number));
    const isFree = (organization: OrganizationRef) => !blocked.has(this.#sink.laneOf(organization));
    const page = await (pastBlocked ? this.#outbox.pending(PAGE_EVENTS, isFree) : this.#outbox.pending(PAGE_EVENTS));
    const free = new Map<number, AuditEvent[]>();
    for (const event of page) {
      const number = this.#sink.laneOf(event);
      if (blocked.has(number)) continue;
      const events = free.get(number);
      if (events) events.push(event);
      else free.set(number, [event]);
    }
    // The leadership may have ended, and the relay too, while the store took its time. That says nothing of the lanes,
    // so what was read counts as not found: it is read again as soon as the leadership is renewed.
    if (this.#over || this.#sendMs() < SEND_MS_MIN) return { found: 0, started: 0 };
    for (const [number, events] of free) this.#start(number, batchOf(events, this.#sink.batchBytesMax));
    return { found: page.length, started: free.size };
  }

  #start(number: number, events: readonly AuditEvent[]): void {
    const lane = this.#lanes.get(number) ?? new Lane(this.#clock);
    this.#lanes.set(number, lane);
    lane.begin();
    const delivery = this.#deliver(number, lane, events).finally(() => {
      lane.end();
      this.#deliveries.delete(delivery);
      this.#bells.publish.ring();
    });
    this.#deliveries.add(delivery);
  }

  async #deliver(number: number, lane: Lane, events: readonly AuditEvent[]): Promise<void> {
    let end: number;
    try {
      end = await this.#sink.publish(number, events, this.#sendMs());
    } catch (error) {
      const kind = error instanceof SinkFault ? error.kind : 'unavailable';
      lane.failed(kind);
      this.#sinkFaults[kind] += 1;
      const fields = { err: error, lane: number, failures: lane.failures, failingLanes: this.#failingLanes() };
      if (kind === 'refused') this.#faults.tell('error', SINK_REFUSES, fields);
      else this.#faults.tell('warn', SINK_AWAY, fields);
      return;
    }
    lane.succeeded();
    this.#published += events.length;
    if (this.#failingLanes().length === 0 && this.#faults.areOver(SINK_AWAY, SINK_REFUSES)) {
      this.#log.info('audit relay: the sink takes events again');
    }
    await this.#mark(events, { sink: this.#sink.name, lane: number, end });
  }

  /** Until it is done: leaving it out would only repeat the events, yet as often as the lane is tried. */
  async #mark(events: readonly AuditEvent[], reached: SinkPosition): Promise<void> {
    while (!(await this.#try(CANNOT_MARK, () => this.#outbox.markPublished(events, reached).then(() => true)))) {
      if (this.#flush) return;
      await new Promise((resolve) => setTimeout(resolve, MARK_REST_MS));
    }
  }

  /** How long a sending may take now; 0 or less: not at all. */
  #sendMs(): number {
    const flushMs = this.#flush?.remainingMs() ?? SEND_MS;
    return Math.min(SEND_MS, flushMs, this.#claim.remainingMs - SEND_MARGIN_MS);
  }

  #failingLanes(): number[] {
    return [...this.#lanes].filter(([, lane]) => lane.failures > 0).map(([number]) => number);
  }

  /** Answers undefined where the store fails, and tells of it. */
  async #try<T>(fault: string, work: () => Promise<T>): Promise<T | undefined> {
    try {
      const answer = await work();
      if (this.#faults.areOver(fault)) this.#log.info(`${fault}: is over`);
      return answer;
    } catch (error) {
      this.#faults.tell('warn', fault, { err: error });
      return undefined;
    }
  }
}

/** The first of them, as many as fit, at least one. */
function batchOf(events: readonly AuditEvent[], bytesMax: number): AuditEvent[] {
  const batch: AuditEvent[] = [];
  let bytes = 0;
  for (const event of events) {
    bytes += Buffer.byteLength(event.cloudEvent) + EVENT_OVERHEAD_BYTES;
    if (batch.length > 0 && (bytes > bytesMax || batch.length === BATCH_EVENTS)) break;
    batch.push(event);
  }
  return batch;
}
