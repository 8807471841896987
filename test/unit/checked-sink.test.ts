import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';

import { openCheckedSink } from '../../src/audit/checked-sink.js';
import { findLost, whereUnreadable } from '../../src/audit/find-lost.js';
import type { EventStore } from '../../src/audit/read-store.js';
import { type ReadableSink, SinkFault, type SinkReading } from '../../src/audit/sink.js';
import { systemClock } from '../../src/keys/clock.js';
import type { AuditEvent } from '../../src/keys/event.js';
import { GENESIS_HASH, organizationPath, type OrganizationRef } from '../../src/keys/organization.js';
import { captureLog, edit, makeChain, MemoryOutbox, rewrite, toEntries } from '../support/audit.js';
import { SOURCE } from '../support/domain.js';

const one = { keyspace: 'shop', organizationId: 'one' };
const two = { keyspace: 'shop', organizationId: 'two' };
const [chain, other] = [makeChain(6, one), makeChain(3, two)];

const junk = { ...(chain[0] ?? expect.fail('no event')), cloudEvent: 'junk' };

describe('events that a store lacks', () => {
  test('are those of the sink beyond its end, each once, whatever is repeated or comes from elsewhere', async () => {
    const foreign = makeChain(2, one, 'urn:keyreeve:elsewhere');
    const held = [...chain.slice(0, 4), ...foreign, ...chain.slice(2), ...other, ...chain.slice(4)];
    const {
      events,
      foreign: passedOver,
      unreadable,
      organizations,
    } = await lostOf(held, [...chain.slice(0, 3), ...other]);
    expect({ events, foreign: passedOver }).toEqual({ events: held.length - 2, foreign: 2 });
    expect(unreadable.count).toBe(0);
    expect(organizations).toMatchObject([{ organization: one, count: 3, head: { sequence: 3, hash: chain[2]?.hash } }]);
    expect(chain.slice(3)).toMatchObject(organizations[0]?.events.map(({ event }) => event) ?? []);
    expect(organizations[0]?.obstacle).toBeUndefined();
  });

  test('are all of them where the store is empty', async () => {
    const { organizations } = await lostOf([...other, ...chain], []);
    expect(organizations.map(({ count, obstacle }) => [count, obstacle])).toEqual([
      [6, undefined],
      [3, undefined],
    ]);
  });

  test('are none where the store has more than the sink', async () => {
    expect((await lostOf(chain.slice(0, 2), chain)).organizations).toEqual([]);
    expect((await lostOf([], chain)).organizations).toEqual([]);
  });

  const forked = (sequence: number) =>
    chain.map((event) => {
      return event.sequence === sequence ? rewrite(event, ({ data }) => void (data.caller = 'eve')) : event;
    });
  test.each<[string, readonly AuditEvent[], readonly AuditEvent[], string]>([
    ['the store went on by itself', chain, forked(3).slice(0, 3), 'the store has another event 3, or none'],
    ['the sink lacks some of them', chain.toSpliced(3, 1), chain.slice(0, 3), 'event 4 is missing'],
    [
      'the sink has two of one place',
      [...chain, ...forked(5).slice(4, 5)],
      chain.slice(0, 3),
      'there are two different events 5',
    ],
    ['they follow another event', forked(4), chain.slice(0, 3), 'event 5 follows another event 4'],
    [
      'this version does not know one',
      [...chain.slice(0, 3), unknown(chain[3])],
      chain.slice(0, 3),
      'event 4 is none that this version knows',
    ],
  ])('are not put back where %s', async (_, held, stored, obstacle) => {
    expect((await lostOf(held, stored)).organizations).toMatchObject([{ obstacle }]);
  });

  test('are also those that were altered, and they are not put back', async () => {
    const [, second, , fourth] = chain;
    const altered = edit(fourth ?? expect.fail('no event'), '"console"', '"eve"');
    const { events, organizations } = await lostOf([...chain.slice(0, 3), altered], chain.slice(0, 3));
    const obstacle = 'event 4 was altered (line 4): its content does not have the hash that it states';
    expect({ events, organizations }).toMatchObject({ events: 4, organizations: [{ count: 1, events: [], obstacle }] });
    const spaced = edit(fourth ?? expect.fail('no event'), /^\{/, '{ ');
    expect((await lostOf([...chain, spaced], chain)).organizations).toMatchObject([{ count: 1 }]);

    // Altered in the store in the same way: `audit verify` says so, and nothing is lost.
    const alike = edit(second ?? expect.fail('no event'), '"console"', '"eve"');
    expect((await lostOf([alike], chain.with(1, alike))).organizations).toEqual([]);
  });

  test('are counted among the rest where nobody can tell whose event it was, or whether it was one', async () => {
    const stranger = edit(makeChain(1, one, 'urn:keyreeve:elsewhere')[0] ?? expect.fail('no event'), 'console', 'eve');
    const {
      events,
      foreign: passedOver,
      unreadable,
    } = await lostOf([...chain.slice(0, 2), junk, stranger, ...Array.from({ length: 10 }, () => junk)], chain);
    expect({ events, foreign: passedOver, count: unreadable.count }).toEqual({ events: 2, foreign: 0, count: 12 });
    expect(whereUnreadable(unreadable)).toMatch(/^line 3, line 4, .*, line 12 and 2 more$/);
  });
});

describe('a sink that is checked', () => {
  beforeEach(() => {
    vi.useFakeTimers();
  });
  afterEach(() => {
    vi.useRealTimers();
  });

  test('is read from the position that is remembered, and not at all where it ends there', async () => {
    const parts = makeParts(chain, chain);
    await parts.store.outbox.remember([{ sink: 'fake', lane: 0, end: 4 }]);
    await openCheckedSink(parts);
    expect(parts.sink.read).toBe(2);
    await openCheckedSink(parts);
    expect(parts.sink.read).toBe(2);
    expect(await parts.store.outbox.positions('fake')).toEqual(new Map([[0, 6]]));
  });

  test('asks the store again once it has shown that it is no deposed one, before it calls it behind', async () => {
    const parts = makeParts(chain, chain.slice(0, 2));
    const { store } = parts;
    // The first answers are those of a primary that others have gone on without.
    const ping = vi.fn(() => {
      store.listEvents = eventStore(chain).listEvents;
      return Promise.resolve();
    });
    store.ping = ping;
    await openCheckedSink(parts);
    expect(ping).toHaveBeenCalledOnce();
    expect(await store.outbox.positions('fake')).toEqual(new Map([[0, 6]]));
  });

  test('does not open where it holds what the store lacks, and says how much and what to do', async () => {
    const parts = makeParts([...chain, ...other], chain.slice(0, 2));
    await expect(openCheckedSink(parts)).rejects.toThrow(
      /\(fake\) holds 7 events of 2 organizations that the store lacks: .*keyreeve reconcile/,
    );
    expect(parts.sink.closed).toBe(true);
    expect(await parts.store.outbox.positions('fake')).toEqual(new Map());
  });

  test('does not open where an event was altered, whoever else may write there', async () => {
    for (const kind of ['file', 'topic'] as const) {
      const altered = edit(chain[2] ?? expect.fail('no event'), '"console"', '"eve"');
      const parts = makeParts([...chain.slice(0, 2), altered], chain.slice(0, 2), { kind });
      await expect(openCheckedSink(parts)).rejects.toThrow('holds 1 event of 1 organization that the store lacks');
    }
  });

  test('does not open where its own file holds what is no event, and says where', async () => {
    const parts = makeParts([...chain, junk], chain, { kind: 'file' });
    await expect(openCheckedSink(parts)).rejects.toThrow(
      /\(fake\) was damaged .*: line 7 cannot be read.*restoring\.md/,
    );
    expect(await parts.store.outbox.positions('fake')).toEqual(new Map());
  });

  test('opens with a warning where a topic holds what is no event, since anybody may write there', async () => {
    const parts = makeParts([...chain, junk], chain, { kind: 'topic' });
    await openCheckedSink(parts);
    expect(parts.lines.filter(({ level }) => level === 40)).toMatchObject([{ count: 1, positions: ['line 7'] }]);
  });

  test.each([
    ['file', { bytes: 4 }, /audit file any more.*keyreeve audit verify --store.*--file .*--against store/],
    ['topic', { offsets: 4 }, /audit topic any more.*keyreeve audit verify --store.*--topic .*--against store/],
  ] as const)(
    'opens with an error where a %s ends before what is remembered, and says it once',
    async (kind, field, message) => {
      const parts = makeParts(chain.slice(0, 2), chain, { kind });
      await parts.store.outbox.remember([{ sink: 'fake', lane: 0, end: 6 }]);
      await openCheckedSink(parts);
      await openCheckedSink(parts);
      const errors = parts.lines.filter(({ level }) => level === 50);
      expect(errors).toMatchObject([{ ...field, lanes: [{ lane: 0, remembered: 6, end: 2 }] }]);
      expect(errors[0]?.msg).toMatch(message);
    },
  );

  test('that ends where it is remembered to end opens without a word', async () => {
    const parts = makeParts(chain, chain);
    await parts.store.outbox.remember([{ sink: 'fake', lane: 0, end: 6 }]);
    await openCheckedSink(parts);
    expect(parts.lines).toEqual([]);
  });

  test('that is away at the start takes nothing before it has been compared with the store', async () => {
    const parts = makeParts(chain.slice(0, 4), chain, { away: true });
    const { sink } = await openCheckedSink(parts);
    const publishing = expect(sink.publish(0, chain.slice(4), 1000)).rejects.toMatchObject({ kind: 'unavailable' });
    await vi.advanceTimersByTimeAsync(1000);
    await publishing;
    expect(parts.sink.held).toHaveLength(4);

    parts.sink.away = false;
    expect(await sink.publish(0, chain.slice(4), 1000)).toBe(6);
    expect(parts.sink.read).toBe(4);
    await sink[Symbol.asyncDispose]();
  });

  test('that is away at the start is compared as soon as it answers, also by one that publishes nothing', async () => {
    const parts = makeParts(chain, chain.slice(0, 2), { away: true });
    const { sink, broken } = await openCheckedSink(parts);
    const told = expect(broken).rejects.toThrow('holds 4 events of 1 organization');
    await vi.advanceTimersByTimeAsync(60_000);
    parts.sink.away = false;
    await vi.advanceTimersByTimeAsync(5000);
    await told;
    await expect(sink.publish(0, other, 1000)).rejects.toMatchObject({ kind: 'refused' });
    expect(parts.sink.held).toEqual(chain);
    expect(parts.lines.filter(({ level }) => level === 50)).toHaveLength(1);
    await sink[Symbol.asyncDispose]();
  });

  test('gives up what it has begun when it is closed', async () => {
    const parts = makeParts(chain, [], { away: true });
    const { sink } = await openCheckedSink(parts);
    await sink[Symbol.asyncDispose]();
    parts.sink.away = false;
    await vi.advanceTimersByTimeAsync(60_000);
    expect(parts.sink.read).toBe(0);
  });
});

function lostOf(held: readonly AuditEvent[], stored: readonly AuditEvent[]) {
  return findLost(from(held), eventStore(stored), { source: SOURCE, clock: systemClock });
}

function makeParts(
  held: readonly AuditEvent[],
  stored: readonly AuditEvent[],
  { away = false, kind = 'file' }: { away?: boolean; kind?: ReadableSink['kind'] } = {},
) {
  const { log, lines } = captureLog();
  const store = { ...eventStore(stored), outbox: new MemoryOutbox(), ping: () => Promise.resolve() };
  return { sink: new FakeSink(held, away, kind), store, source: SOURCE, clock: systemClock, log, lines };
}

function eventStore(stored: readonly AuditEvent[]): Pick<EventStore, 'listEvents'> {
  return {
    listEvents(organization: OrganizationRef, { afterSequence, limit }) {
      const own = stored.filter((event) => organizationPath(event) === organizationPath(organization));
      const events = own.filter(({ sequence }) => sequence > afterSequence).slice(0, limit);
      const { sequence, hash } = own.at(-1) ?? { sequence: 0, hash: GENESIS_HASH };
      return Promise.resolve({ events, head: { sequence, hash } });
    },
  };
}

/** One lane, whose positions count events. */
class FakeSink implements ReadableSink {
  readonly name = 'fake';
  readonly batchBytesMax = 1_000_000;
  readonly answered: boolean;
  readonly held: AuditEvent[];
  read = 0;
  closed = false;

  constructor(
    held: readonly AuditEvent[],
    public away: boolean,
    readonly kind: ReadableSink['kind'],
  ) {
    this.held = [...held];
    this.answered = !away;
  }

  laneOf(): number {
    return 0;
  }

  publish(_: number, events: readonly AuditEvent[]): Promise<number> {
    return Promise.resolve(this.held.push(...events));
  }

  readFrom(positions: ReadonlyMap<number, number>): Promise<SinkReading> {
    if (this.away) return Promise.reject(new SinkFault('unavailable', 'away'));
    const position = positions.get(0) ?? 0;
    const unread = this.held.slice(position > this.held.length ? 0 : position);
    const entries = from(unread, () => (this.read += 1));
    return Promise.resolve({ entries, ends: new Map([[0, this.held.length]]), isEmpty: unread.length === 0 });
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.closed = true;
    return Promise.resolve();
  }
}

async function* from(events: readonly AuditEvent[], onRead: () => unknown = () => undefined) {
  for (const entry of toEntries(events)) {
    onRead();
    yield await Promise.resolve(entry);
  }
}

function unknown(event: AuditEvent | undefined): AuditEvent {
  return rewrite(event ?? expect.fail('no event'), (envelope) => (envelope.type = 'keyreeve.key.lent'));
}
