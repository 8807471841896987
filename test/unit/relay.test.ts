import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';

import { LEADERSHIP_MS, PATIENCE_MS } from '../../src/audit/leadership.js';
import { type Relay, RELAY_STOP_MS, startRelay } from '../../src/audit/relay.js';
import { type AuditSink, SinkFault } from '../../src/audit/sink.js';
import { systemClock } from '../../src/keys/clock.js';
import type { AuditEvent } from '../../src/keys/event.js';
import type { OrganizationRef } from '../../src/keys/organization.js';
import { captureLog, firstCopies, type LogLine, makeChain, MemoryOutbox } from '../support/audit.js';

// The clock and all timers are vitest's, so hours pass in no time.
beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

const [one, two, three] = ['one', 'two', 'three'].map((organizationId) => ({ keyspace: 'shop', organizationId }));
const inOrder = (count: number) => Array.from({ length: count }, (_, at) => at + 1);

describe('publishing', () => {
  test('what is pending at the start and what is committed later is published in order and marked', async () => {
    const { relay, outbox, sink } = await start({ pending: makeChain(3, one) });
    await vi.advanceTimersByTimeAsync(1000);
    expect(sequences(sink)).toEqual({ 'shop/one': [1, 2, 3] });

    outbox.commit(makeChain(5, two));
    await vi.advanceTimersByTimeAsync(10);
    expect(sequences(sink)).toEqual({ 'shop/one': [1, 2, 3], 'shop/two': [1, 2, 3, 4, 5] });
    expect(outbox.unpublished).toEqual([]);
    expect(sink.publishings).toBe(2);
    expect(relay.standing).toEqual({ leads: true, published: 8, faults: { unavailable: 0, refused: 0 } });
  });

  test('what is marked is remembered with where its lane of the sink goes on', async () => {
    const { outbox, sink } = await start();
    sink.failAfterwards = () => new SinkFault('unavailable', 'no answer');
    outbox.commit(makeChain(3, one));
    await vi.advanceTimersByTimeAsync(10);
    expect(sink.published).toHaveLength(3);
    expect(await outbox.positions('fake')).toEqual(new Map());

    sink.failAfterwards = () => undefined;
    outbox.commit(makeChain(2, two));
    await vi.advanceTimersByTimeAsync(1000);
    // What arrived without an answer was repeated, and lies before the position, too.
    const positions = new Map([
      [0, 6],
      [1, 2],
    ]);
    expect(await outbox.positions('fake')).toEqual(positions);
  });

  test('what another process commits is found without a bell', async () => {
    const { outbox, sink } = await start();
    outbox.commit(makeChain(1, one), { ring: false });
    await vi.advanceTimersByTimeAsync(250);
    expect(sequences(sink)).toEqual({ 'shop/one': [1] });
  });

  test('events go out in batches that the sink can take, each after the one before is marked', async () => {
    const { sink, outbox } = await start({ pending: makeChain(1200, one) });
    await vi.advanceTimersByTimeAsync(1000);
    expect(sink.batches.map(({ length }) => length)).toEqual([500, 500, 200]);
    expect(sequences(sink)).toEqual({ 'shop/one': inOrder(1200) });
    expect(outbox.calls.filter((call) => call === 'markPublished')).toHaveLength(3);
  });

  test('a batch holds no more bytes than the sink takes, and one event always goes', async () => {
    const { sink } = await start({ pending: makeChain(6, one), batchBytesMax: 3000 });
    await vi.advanceTimersByTimeAsync(1000);
    expect(sequences(sink)).toEqual({ 'shop/one': inOrder(6) });
    expect(Math.max(...sink.batches.map(({ length }) => length))).toBe(2);

    const tiny = await start({ pending: makeChain(3, one), batchBytesMax: 1 });
    await vi.advanceTimersByTimeAsync(1000);
    expect(tiny.sink.batches.map(({ length }) => length)).toEqual([1, 1, 1]);
  });

  test('in a lane one publishing is in flight, and lanes do not wait for one another', async () => {
    const { outbox, sink } = await start();
    sink.publishMs = 1000;
    outbox.commit(makeChain(2, one));
    await vi.advanceTimersByTimeAsync(100);
    outbox.commit([...makeChain(3, two), ...makeChain(4, one).slice(2)]);
    await vi.advanceTimersByTimeAsync(1000);
    expect(sink.mostInFlight).toEqual({ lane: 1, all: 2 });
    await vi.advanceTimersByTimeAsync(5000);
    expect(firstCopies(sink.published)).toEqual(firstCopies([...makeChain(4, one), ...makeChain(3, two)]));
  });
});

describe('a sink that fails', () => {
  test('an event is published again until it is there, in order, and nothing is skipped', async () => {
    const { outbox, sink, lines } = await start();
    sink.fail = () => new SinkFault('unavailable', 'away');
    outbox.commit(makeChain(3, one));
    await vi.advanceTimersByTimeAsync(600_000);
    expect(sink.published).toEqual([]);
    expect(outbox.unpublished).toHaveLength(3);
    // One line when it begins and one every half minute, however often it is tried.
    expect(lines.filter(({ msg }) => msg.includes('the sink takes no events')).length).toBeLessThanOrEqual(21);

    sink.fail = () => undefined;
    await vi.advanceTimersByTimeAsync(5250);
    expect(sequences(sink)).toEqual({ 'shop/one': [1, 2, 3] });
    expect(outbox.unpublished).toEqual([]);
    expect(lines.at(-1)?.msg).toContain('the sink takes events again');
  });

  test('what arrived without an answer is repeated, and only that', async () => {
    const { outbox, sink } = await start();
    sink.failAfterwards = () => new SinkFault('unavailable', 'no answer');
    outbox.commit(makeChain(2, one));
    await vi.advanceTimersByTimeAsync(10);
    sink.failAfterwards = () => undefined;
    outbox.commit(makeChain(3, one).slice(2));
    await vi.advanceTimersByTimeAsync(5000);
    expect(sink.published.map(({ sequence }) => sequence)).toEqual([1, 2, 1, 2, 3]);
  });

  test('a lane that is refused is told of as an error, and again from time to time', async () => {
    const { relay, outbox, sink, lines } = await start();
    sink.fail = () => new SinkFault('refused', 'not allowed');
    outbox.commit(makeChain(1, one));
    await vi.advanceTimersByTimeAsync(300_000);
    const errors = lines.filter(({ level }) => level === 50);
    expect(errors.length).toBeGreaterThan(3);
    expect(errors[0]).toMatchObject({ lane: 0, failingLanes: [0], err: { message: 'not allowed' } });
    expect(sink.attempts).toBeLessThan(20);
    const faults = { unavailable: 0, refused: sink.attempts };
    expect(relay.standing).toEqual({ leads: true, published: 0, faults });
  });

  test('a lane that fails holds up no other, also when its events fill every page', async () => {
    const { outbox, sink } = await start();
    sink.fail = (lane) => (lane === 0 ? new SinkFault('refused', 'not allowed') : undefined);
    outbox.commit(makeChain(3000, one));
    await vi.advanceTimersByTimeAsync(1000);
    outbox.commit([...makeChain(700, two), ...makeChain(5, three)]);
    await vi.advanceTimersByTimeAsync(20_000);
    expect(sequences(sink)).toEqual({ 'shop/two': inOrder(700), 'shop/three': inOrder(5) });

    sink.fail = () => undefined;
    await vi.advanceTimersByTimeAsync(120_000);
    expect(sequences(sink)['shop/one']).toEqual(inOrder(3000));
  });

  test('while nothing can be sent, the store is not read at each commit', async () => {
    const { outbox, sink } = await start();
    sink.fail = () => new SinkFault('unavailable', 'away');
    outbox.commit(makeChain(1, one));
    await vi.advanceTimersByTimeAsync(10_000);
    const before = count(outbox, 'pending');
    for (let commits = 0; commits < 1000; commits += 1) {
      outbox.commit([]);
      await vi.advanceTimersByTimeAsync(10);
    }
    expect(count(outbox, 'pending') - before).toBeLessThan(60);
  });
});

describe('a store that fails', () => {
  test('marks that fail are tried again, and their events are not published again', async () => {
    const { outbox, sink } = await start();
    outbox.intercept = (call) => {
      if (call === 'markPublished') throw new Error('store away');
    };
    outbox.commit(makeChain(2, one));
    await vi.advanceTimersByTimeAsync(60_000);
    expect(sequences(sink)).toEqual({ 'shop/one': [1, 2] });
    outbox.intercept = () => undefined;
    await vi.advanceTimersByTimeAsync(1000);
    expect(outbox.unpublished).toEqual([]);
    expect(sink.publishings).toBe(1);
  });

  test('nothing is published once the leadership cannot be renewed for its length', async () => {
    const { outbox, sink, lines } = await start();
    outbox.intercept = (call) => {
      if (call === 'replaceLeadership') throw new Error('store away');
    };
    await vi.advanceTimersByTimeAsync(LEADERSHIP_MS);
    outbox.commit(makeChain(1, one));
    await vi.advanceTimersByTimeAsync(60_000);
    expect(sink.attempts).toBe(0);
    expect(lines.filter(({ msg }) => msg.includes('publishes no more'))).toHaveLength(1);

    outbox.intercept = () => undefined;
    await vi.advanceTimersByTimeAsync(2000);
    expect(sequences(sink)).toEqual({ 'shop/one': [1] });
  });

  test('events read when the leadership had nearly run out are published as soon as it is renewed', async () => {
    const { outbox, sink } = await start();
    let goOn: () => void = () => undefined;
    const hanging = new Promise<void>((resolve) => {
      goOn = resolve;
    });
    outbox.intercept = () => hanging;
    outbox.commit(makeChain(1, one));
    await vi.advanceTimersByTimeAsync(LEADERSHIP_MS - 100);
    outbox.intercept = () => undefined;
    goOn();
    await vi.advanceTimersByTimeAsync(2000);
    expect(sequences(sink)).toEqual({ 'shop/one': [1] });
  });

  test('one slow answer delays by seconds only what waits for its sink', async () => {
    const { outbox, sink } = await start();
    sink.fail = () => new SinkFault('unavailable', 'away');
    outbox.commit(makeChain(1, one));
    await vi.advanceTimersByTimeAsync(60_000);
    outbox.intercept = async (call) => {
      if (call === 'pending') await new Promise((resolve) => setTimeout(resolve, 4000));
    };
    await vi.advanceTimersByTimeAsync(10_000);
    outbox.intercept = () => undefined;
    sink.fail = () => undefined;
    await vi.advanceTimersByTimeAsync(15_000);
    expect(sequences(sink)).toEqual({ 'shop/one': [1] });
  });

  test('a start does not wait for a store that hangs', async () => {
    const outbox = new MemoryOutbox();
    outbox.intercept = () => new Promise(() => undefined);
    const starting = startRelay(parts(outbox, new FakeSink()));
    await vi.advanceTimersByTimeAsync(2000);
    expect((await starting).backlogExceeded()).toBe(false);
  });
});

describe('leadership', () => {
  test('of two replicas one publishes', async () => {
    const first = await start();
    const second = await start({ outbox: first.outbox });
    first.outbox.commit(makeChain(5, one));
    await vi.advanceTimersByTimeAsync(60_000);
    expect(first.sink.publishings).toBe(1);
    expect(second.sink.attempts).toBe(0);
    expect([first, second].map(({ relay }) => relay.standing.leads)).toEqual([true, false]);
  });

  test('a leader that is gone is followed within 6.5 s of its last renewal, and not before its right has ended', async () => {
    const outbox = new MemoryOutbox();
    await outbox.replaceLeadership(undefined, { holder: 'gone', count: 7 });
    const { sink } = await start({ outbox, pending: makeChain(1, one) });
    await vi.advanceTimersByTimeAsync(PATIENCE_MS - 10);
    expect(sink.attempts).toBe(0);
    await vi.advanceTimersByTimeAsync(510);
    expect(sequences(sink)).toEqual({ 'shop/one': [1] });
  });

  test('a leader that renews is never overtaken, whatever its count', async () => {
    const outbox = new MemoryOutbox();
    await outbox.replaceLeadership(undefined, { holder: 'alive', count: 1 });
    const { sink } = await start({ outbox, pending: makeChain(1, one) });
    for (let renewals = 0; renewals < 20; renewals += 1) {
      await vi.advanceTimersByTimeAsync(PATIENCE_MS - 500);
      const seen = outbox.leadership;
      await outbox.replaceLeadership(seen, { holder: 'alive', count: (seen?.count ?? 0) + 1 });
    }
    expect(sink.attempts).toBe(0);
  });

  test('a replica that lost the leadership while it was paused publishes nothing more', async () => {
    const { outbox, sink } = await start();
    // It is stopped in the middle of reading; meanwhile another takes over.
    let goOn: () => void = () => undefined;
    outbox.intercept = (call) => (call === 'pending' ? new Promise<void>((resolve) => (goOn = resolve)) : undefined);
    outbox.commit(makeChain(1, one));
    await vi.advanceTimersByTimeAsync(300);
    outbox.intercept = (call) => {
      if (call === 'replaceLeadership') throw new Error('store away');
    };
    await vi.advanceTimersByTimeAsync(LEADERSHIP_MS);
    goOn();
    await vi.advanceTimersByTimeAsync(1000);
    expect(sink.attempts).toBe(0);
  });

  test("a sending's time-out is shorter than the leadership that is left", async () => {
    const { outbox, sink } = await start();
    outbox.intercept = (call) => {
      if (call === 'replaceLeadership') throw new Error('store away');
    };
    await vi.advanceTimersByTimeAsync(3000);
    outbox.commit(makeChain(1, one));
    await vi.advanceTimersByTimeAsync(10);
    expect(sink.timeoutsMs[0]).toBeGreaterThan(0);
    expect(sink.timeoutsMs[0]).toBeLessThan(LEADERSHIP_MS - 3000);
  });

  test('a leader that stops is followed within half a second', async () => {
    const first = await start();
    const second = await start({ outbox: first.outbox });
    await stop(first.relay);
    first.outbox.commit(makeChain(1, one));
    await vi.advanceTimersByTimeAsync(510);
    expect(sequences(second.sink)).toEqual({ 'shop/one': [1] });
  });
});

describe('stopping', () => {
  test('publishes and marks what is pending, then leaves and closes the sink', async () => {
    const { relay, outbox, sink } = await start();
    outbox.commit(makeChain(1100, one), { ring: false });
    await stop(relay);
    expect(sequences(sink)).toEqual({ 'shop/one': inOrder(1100) });
    expect(outbox.unpublished).toEqual([]);
    expect(outbox.leadership?.holder).toBe('');
    expect(sink.closed).toBe(true);
  });

  test('finishes and marks the sending in flight', async () => {
    const { relay, outbox, sink } = await start();
    sink.publishMs = 2000;
    outbox.commit(makeChain(2, one));
    await vi.advanceTimersByTimeAsync(10);
    await stop(relay);
    expect(sequences(sink)).toEqual({ 'shop/one': [1, 2] });
    expect(outbox.unpublished).toEqual([]);
  });

  test('tries a sink that had failed once more, and leaves the rest pending', async () => {
    const { relay, outbox, sink } = await start();
    sink.fail = () => new SinkFault('unavailable', 'away');
    outbox.commit(makeChain(2, one));
    await vi.advanceTimersByTimeAsync(60_000);
    const before = sink.attempts;
    await stop(relay);
    expect(sink.attempts).toBe(before + 1);
    expect(outbox.unpublished).toHaveLength(2);
    expect(outbox.leadership?.holder).toBe('');
  });

  test.each(['sink', 'store'])('takes its bounded time when the %s hangs', async (which) => {
    const { relay, outbox, sink } = await start();
    const forEver = new Promise<void>(() => undefined);
    if (which === 'store') outbox.intercept = () => forEver;
    else sink.hang = forEver;
    outbox.commit(makeChain(2, one));
    await vi.advanceTimersByTimeAsync(10);
    const stopping = stop(relay);
    await vi.advanceTimersByTimeAsync(RELAY_STOP_MS);
    await stopping;
    expect(sink.published).toEqual([]);
  });

  test('publishes nothing where another replica leads', async () => {
    const first = await start();
    const second = await start({ outbox: first.outbox });
    first.sink.fail = () => new SinkFault('unavailable', 'away');
    first.outbox.commit(makeChain(1, one));
    await vi.advanceTimersByTimeAsync(1000);
    await stop(second.relay);
    expect(second.sink.attempts).toBe(0);
  });
});

describe('the backlog', () => {
  test('is known to a replica that does not lead, and too much of it is told', async () => {
    const first = await start({ backlogMax: 10 });
    const second = await start({ outbox: first.outbox, backlogMax: 10 });
    first.sink.fail = () => new SinkFault('unavailable', 'away');
    first.outbox.commit(makeChain(10, one));
    await vi.advanceTimersByTimeAsync(1000);
    expect(second.relay.backlog).toMatchObject({ depth: 10 });
    expect(second.relay.backlogExceeded()).toBe(false);

    first.outbox.commit(makeChain(1, two));
    await vi.advanceTimersByTimeAsync(1000);
    expect([first.relay.backlogExceeded(), second.relay.backlogExceeded()]).toEqual([true, true]);
    expect(second.lines.at(-1)).toMatchObject({ level: 50, depth: 11, depthMax: 10 });

    first.sink.fail = () => undefined;
    await vi.advanceTimersByTimeAsync(6000);
    expect([first.relay.backlogExceeded(), second.relay.backlogExceeded()]).toEqual([false, false]);
  });

  test('that is there at the start is known when the start is done', async () => {
    const { relay } = await start({ pending: makeChain(3, one), backlogMax: 2, advance: false });
    expect(relay.backlogExceeded()).toBe(true);
  });

  test('is logged when it changes its magnitude and every minute, and warned of when it is old', async () => {
    const { outbox, sink, lines } = await start();
    const told = () => lines.filter(({ msg }) => msg.startsWith('audit backlog'));
    sink.fail = () => new SinkFault('unavailable', 'away');
    vi.setSystemTime(makeChain(1)[0]?.time ?? 0);
    outbox.commit(makeChain(5, one));
    await vi.advanceTimersByTimeAsync(30_000);
    expect(told()).toMatchObject([{ level: 30, depth: 5 }]);
    outbox.commit(makeChain(200, two));
    await vi.advanceTimersByTimeAsync(10_000);
    expect(told()).toHaveLength(2);
    await vi.advanceTimersByTimeAsync(180_000);
    const [, , ...later] = told();
    expect(later).toMatchObject([1, 2, 3].map(() => ({ level: 40, depth: 205 })));
    expect(later[0]?.oldestAgeMs).toBeGreaterThanOrEqual(60_000);
  });
});

interface Started {
  relay: Relay;
  outbox: MemoryOutbox;
  sink: FakeSink;
  lines: LogLine[];
}

async function start({
  outbox = new MemoryOutbox(),
  pending = [],
  batchBytesMax = 1_000_000,
  backlogMax = 1_000_000,
  advance = true,
}: {
  outbox?: MemoryOutbox;
  pending?: readonly AuditEvent[];
  batchBytesMax?: number;
  backlogMax?: number;
  advance?: boolean;
} = {}): Promise<Started> {
  outbox.commit(pending, { ring: false });
  const sink = new FakeSink(batchBytesMax);
  const { log, lines } = captureLog();
  const relay = await startRelay({ ...parts(outbox, sink), backlogMax, log });
  if (advance) await vi.advanceTimersByTimeAsync(1);
  return { relay, outbox, sink, lines };
}

function parts(outbox: MemoryOutbox, sink: AuditSink) {
  return { outbox, sink, backlogMax: 1_000_000, clock: systemClock, log: captureLog().log };
}

/** Disposes it while time passes as fast as it is waited for. */
async function stop(relay: Relay): Promise<void> {
  const stopped = new AbortController();
  const stopping = Promise.resolve(relay[Symbol.asyncDispose]()).then(() => stopped.abort());
  for (let ms = 0; !stopped.signal.aborted && ms < RELAY_STOP_MS; ms += 10) await vi.advanceTimersByTimeAsync(10);
  await stopping;
}

function sequences(sink: FakeSink): Record<string, number[]> {
  const all: Record<string, number[]> = {};
  for (const { keyspace, organizationId, sequence } of sink.published) {
    (all[`${keyspace}/${organizationId}`] ??= []).push(sequence);
  }
  return all;
}

function count(outbox: MemoryOutbox, call: string): number {
  return outbox.calls.filter((one) => one === call).length;
}

/** A lane for each organization that the tests know; its positions count the events that arrived in it. */
class FakeSink implements AuditSink {
  readonly name = 'fake';
  readonly published: AuditEvent[] = [];
  readonly batches: (readonly AuditEvent[])[] = [];
  readonly timeoutsMs: number[] = [];
  readonly mostInFlight = { lane: 0, all: 0 };
  readonly #inFlight = new Map<number, number>();
  attempts = 0;
  publishings = 0;
  publishMs = 0;
  closed = false;
  hang: Promise<void> | undefined;
  /** Before and after the events have arrived. */
  fail: (lane: number) => SinkFault | undefined = () => undefined;
  failAfterwards: (lane: number) => SinkFault | undefined = () => undefined;

  constructor(readonly batchBytesMax = 1_000_000) {}

  laneOf({ organizationId }: OrganizationRef): number {
    return ['one', 'two', 'three'].indexOf(organizationId);
  }

  async publish(lane: number, events: readonly AuditEvent[], timeoutMs: number): Promise<number> {
    this.attempts += 1;
    this.timeoutsMs.push(timeoutMs);
    this.#count(lane, 1);
    try {
      if (this.hang) await this.hang;
      if (this.publishMs > 0) await new Promise((resolve) => setTimeout(resolve, this.publishMs));
      const before = this.fail(lane);
      if (before) throw before;
      this.published.push(...events);
      this.batches.push(events);
      const after = this.failAfterwards(lane);
      if (after) throw after;
      this.publishings += 1;
      return this.published.filter((event) => this.laneOf(event) === lane).length;
    } finally {
      this.#count(lane, -1);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.hang) await this.hang;
    this.closed = true;
  }

  #count(lane: number, change: number): void {
    this.#inFlight.set(lane, (this.#inFlight.get(lane) ?? 0) + change);
    const counts = [...this.#inFlight.values()];
    this.mostInFlight.lane = Math.max(this.mostInFlight.lane, ...counts);
    this.mostInFlight.all = Math.max(
      this.mostInFlight.all,
      counts.reduce((sum, next) => sum + next, 0),
    );
  }
}
