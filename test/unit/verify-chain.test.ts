import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { RECENT_EVENTS, RecentHashes } from '../../src/audit/recent-hashes.js';
import { type Entry, type Place, type Verdict, verifyChain, type VerifyOptions } from '../../src/audit/verify-chain.js';
import { canonicalJson, type CloudEvent } from '../../src/keys/chain.js';
import type { AuditEvent } from '../../src/keys/event.js';
import { organizationPath } from '../../src/keys/organization.js';
import { edit, makeChain, rewrite, toEntries, TRACEPARENT } from '../support/audit.js';

const other = { keyspace: 'shop', organizationId: 'other' };
const chain = makeChain(6);
const path = 'shop/acme';

describe('whole events', () => {
  test('several organizations, mixed, are found whole and counted', async () => {
    const [a, b] = [chain, makeChain(3, other)];
    const mixed = [a[0], b[0], a[1], a[2], b[1], a[3], a[4], b[2], a[5]].map(there);
    expect(await verify(mixed, { heads: headsOf([...a, ...b]) })).toEqual({
      organizations: 2,
      events: 9,
      repeats: 0,
      beforeAnchors: 0,
      ends: headsOf([...a, ...b]),
      faultCount: 0,
      faults: [],
    });
  });

  test('nothing at all is whole', async () => {
    expect(await verify([])).toMatchObject({ organizations: 0, events: 0, faultCount: 0 });
  });

  test('an exact repeat is counted, and is no fault in a file or a topic', async () => {
    const repeated = [...chain.slice(0, 4), ...chain.slice(1, 4), ...chain.slice(2)];
    expect(await verify(repeated, { heads: headsOf(chain) })).toMatchObject({ repeats: 5, faultCount: 0 });
  });

  test('an exact repeat is a fault in a store', async () => {
    const verdict = await verify([...chain.slice(0, 3), there(chain[2])], { repeats: 'fault' });
    expect(verdict).toMatchObject({ repeats: 1, faultCount: 1, faults: [{ kind: 'repeat', sequence: 3 }] });
  });

  test('a repeat too far back to be compared is a fault', async () => {
    const long = makeChain(RECENT_EVENTS + 2);
    expect(await verify([...long, there(long[2])])).toMatchObject({ repeats: 1, faultCount: 0 });
    expect(await verify([...long, there(long[1])])).toMatchObject({
      repeats: 0,
      faults: [{ kind: 'repeat', sequence: 2 }],
    });
  });

  test('a last line without its end is told of and not judged', async () => {
    const half = { text: there(chain[3]).cloudEvent.slice(0, 50), position: 'line 4', partial: true };
    const verdict = await verifyChain(from([...toEntries(chain.slice(0, 3)), half]), { repeats: 'counted' });
    expect(verdict).toMatchObject({ events: 3, partialLine: 'line 4', faultCount: 0 });
  });

  test('progress is told every 10,000 events and at the end', async () => {
    const told: unknown[] = [];
    const [event] = toEntries(chain);
    const entries = Array.from({ length: 10_001 }, (_, at) => ({ ...there(event), share: (at + 1) / 10_001 }));
    await verifyChain(from(entries), { repeats: 'counted', onProgress: (progress) => told.push(progress) });
    expect(told).toEqual([
      { events: 10_000, share: 10_000 / 10_001 },
      { events: 10_001, share: 1 },
    ]);
  });
});

describe('what was done to them is found and named', () => {
  test('an event edited', async () => {
    await expectFault(withEvent(3, edit(there(chain[2]), '"ada"', '"eve"')), {
      kind: 'altered',
      sequence: 3,
      position: 'line 3',
    });
  });

  test('an event put into another trace, taken out of its own, or put into one', async () => {
    const [created, revoked] = [there(chain[0]), there(chain[1])];
    const altered = [
      edit(revoked, TRACEPARENT, TRACEPARENT.replace('4bf9', '4bf8')),
      edit(revoked, `,"traceparent":"${TRACEPARENT}"`, ''),
    ];
    for (const event of altered) await expectFault(withEvent(2, event), { kind: 'altered', sequence: 2 });
    const traced = edit(created, ',"type":"keyreeve', `,"traceparent":"${TRACEPARENT}","type":"keyreeve`);
    await expectFault(withEvent(1, traced), { kind: 'altered', sequence: 1 });
  });

  test('an event edited with its hash made to fit: its successor names another', async () => {
    const forged = rewrite(there(chain[2]), ({ data }) => {
      data.actor.id = 'eve';
    });
    await expectFault(withEvent(3, forged), { kind: 'fork', sequence: 4, position: 'line 4' });
  });

  test('the last event edited with its hash made to fit: the head names another', async () => {
    const forged = rewrite(there(chain[5]), ({ data }) => {
      data.actor.id = 'eve';
    });
    await expectFault(withEvent(6, forged), { kind: 'fork', sequence: 6 }, { heads: headsOf(chain) });
  });

  test('text written anew, with the same content', async () => {
    const envelope = JSON.parse(there(chain[2]).cloudEvent) as CloudEvent;
    const spaced = { ...there(chain[2]), cloudEvent: JSON.stringify(envelope, null, 1).replaceAll('\n', '') };
    await expectFault(withEvent(3, spaced), { kind: 'altered', sequence: 3 });
  });

  test('a member given twice, of which readers see different ones', async () => {
    const doubled = edit(there(chain[2]), '"actor":{', '"actor":{"id":"eve","type":"USER"},"actor":{');
    await expectFault(withEvent(3, doubled), { kind: 'altered', sequence: 3 });
  });

  test('an event dropped from the middle', async () => {
    await expectFault(without(3), {
      kind: 'gap',
      sequence: 4,
      position: 'line 3',
      message: 'event 3 is missing before it',
    });
  });

  test('several dropped from the start', async () => {
    await expectFault(chain.slice(2), {
      kind: 'gap',
      sequence: 3,
      position: 'line 1',
      message: 'events 1 to 2 are missing before it',
    });
  });

  test('several dropped at the end', async () => {
    const heads = headsOf(chain);
    await expectFault(
      chain.slice(0, 4),
      { kind: 'tail', sequence: 5, message: 'events 5 to 6 are missing at the end: not published yet, or removed' },
      { heads },
    );
  });

  test('an organization dropped altogether', async () => {
    const heads = headsOf([...chain, ...makeChain(2, other)]);
    await expectFault(chain, { kind: 'tail', organization: 'shop/other', sequence: 1 }, { heads });
  });

  test('two events swapped', async () => {
    await expectFault(
      [0, 2, 1, 3, 4, 5].map((at) => there(chain[at])),
      { kind: 'order', sequence: 2, position: 'line 3' },
    );
  });

  test('a second event of a sequence', async () => {
    const forged = rewrite(there(chain[2]), ({ data }) => {
      data.actor.id = 'eve';
    });
    await expectFault([...chain.slice(0, 3), forged, ...chain.slice(3)], {
      kind: 'fork',
      sequence: 3,
      position: 'line 4',
    });
  });

  test('another history from some event on', async () => {
    const second = makeChain(6);
    await expectFault([...chain.slice(0, 3), ...second.slice(3)], { kind: 'fork', sequence: 4, position: 'line 4' });
  });

  test('an event of another installation', async () => {
    const foreign = makeChain(1, other, 'urn:keyreeve:elsewhere');
    await expectFault([...chain, ...foreign], { kind: 'foreign', organization: 'shop/other' });
    await expectFault(foreign, { kind: 'foreign', organization: 'shop/other' }, { source: 'urn:keyreeve:test' });
  });

  test.each([
    ['no JSON', '{"data":'],
    ['other JSON', '[1]'],
    ['nothing', ''],
    ['deep nesting', '['.repeat(200_000)],
  ])('a line that is no event: %s', async (_, text) => {
    const entries = [...toEntries(chain), { text, position: 'line 7' }];
    const verdict = await verifyChain(from(entries), { repeats: 'counted' });
    expect(verdict).toMatchObject({ faultCount: 1, faults: [{ kind: 'unreadable', position: 'line 7' }] });
  });

  test('an event whose subject names another key', async () => {
    const forged = rewrite(there(chain[5]), (envelope) => {
      envelope.subject = 'shop/acme/key_other';
    });
    await expectFault(withEvent(6, forged), { kind: 'misplaced', sequence: 6 });
  });

  test.each([
    ['the message key', { organization: 'shop/other' }, 'misplaced'],
    ['the hash column', { hash: 'f'.repeat(64) }, 'misplaced'],
    ['the event id column', { eventId: 'evt_other' }, 'misplaced'],
    ['the key id column', { keyId: 'key_other' }, 'misplaced'],
    ['the sequence column', { sequence: 4 }, 'order'],
  ])('an event that %s contradicts', async (_, claims, kind) => {
    const entries = toEntries(chain).map((entry, at) => (at === 2 ? { ...entry, claims } : entry));
    expect(await verifyChain(from(entries), { repeats: 'counted' })).toMatchObject({
      faultCount: 1,
      faults: [{ kind, sequence: 3, position: 'line 3' }],
    });
  });

  test('an organization spread over two partitions', async () => {
    const entries = toEntries(chain).map((entry, at) => ({ ...entry, claims: { partition: at === 4 ? 7 : 3 } }));
    expect(await verifyChain(from(entries), { repeats: 'counted' })).toMatchObject({
      faultCount: 1,
      faults: [{ kind: 'misplaced', sequence: 5 }],
    });
  });

  test('events that the store has forgotten', async () => {
    const headsAfter = () => Promise.resolve(headsOf(chain.slice(0, 4)));
    await expectFault(chain, { kind: 'ahead', sequence: 5 }, { headsAfter });
  });

  test('the first fault is named when there are more than are kept', async () => {
    const broken = makeChain(300).filter(({ sequence }) => sequence % 2 === 0);
    const verdict = await verify(broken);
    expect(verdict).toMatchObject({ faultCount: 150, faults: { length: 100, 0: { kind: 'gap', sequence: 2 } } });
  });

  test('any one event dropped, altered in any place, or swapped with another', async () => {
    const damage = fc.oneof(
      fc.nat(5).map((at) => chain.filter((_, index) => index !== at)),
      fc
        .tuple(fc.nat(5), fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }))
        .map(([at, place]) => chain.map((event, index) => (index === at ? flipOneCharacter(event, place) : event))),
      fc
        .tuple(fc.nat(5), fc.nat(5))
        .filter(([one, two]) => one !== two)
        .map(([one, two]) => chain.map((_, index) => there(chain[index === one ? two : index === two ? one : index]))),
    );
    await fc.assert(
      fc.asyncProperty(damage, async (events) => {
        expect((await verify(events, { heads: headsOf(chain) })).faultCount).toBeGreaterThan(0);
      }),
      { numRuns: 500 },
    );
  });
});

describe('an anchor', () => {
  const anchors = new Map([[path, placeOf(there(chain[2]))]]);

  test('lets a chain begin in its middle', async () => {
    expect(await verify(chain.slice(3), { anchors, heads: headsOf(chain) })).toMatchObject({
      events: 3,
      faultCount: 0,
    });
  });

  test('passes over what lies before it', async () => {
    expect(await verify(chain, { anchors })).toMatchObject({ events: 6, beforeAnchors: 3, faultCount: 0 });
    const { ends } = await verify(chain.slice(0, 3));
    expect(await verify(chain.slice(3), { anchors: ends })).toMatchObject({ faultCount: 0, faults: [] });
  });

  test('that names another event is told of', async () => {
    const wrong = new Map([[path, { sequence: 3, hash: 'f'.repeat(64) }]]);
    expect((await verify(chain, { anchors: wrong })).faults[0]).toMatchObject({ kind: 'fork', sequence: 3 });
    await expectFault(chain.slice(3), { kind: 'fork', sequence: 4 }, { anchors: wrong });
  });

  test('does not excuse a gap behind it', async () => {
    await expectFault(
      chain.slice(4),
      { kind: 'gap', sequence: 5, message: 'event 4 is missing before it' },
      { anchors },
    );
  });

  test('at the head needs no events', async () => {
    const heads = headsOf(chain.slice(0, 3));
    expect(await verify([], { anchors, heads })).toMatchObject({ faultCount: 0 });
    await expectFault([], { kind: 'tail', sequence: 4 }, { anchors, heads: headsOf(chain) });
  });
});

test('the hashes of the last events are kept, and those before them are not taken for missing', () => {
  const hash = (sequence: number) => sequence.toString(16).padStart(64, '0');
  fc.assert(
    fc.property(fc.nat(10_000), fc.array(fc.integer({ min: 1, max: 700 }), { maxLength: 30 }), (start, steps) => {
      const recent = new RecentHashes(start);
      const told = new Set<number>();
      let last = start;
      for (const step of steps) {
        last += step;
        recent.set(last, hash(last));
        told.add(last);
      }
      for (let sequence = Math.max(0, start - 5); sequence <= last + 5; sequence += 1) {
        const known = sequence > start && sequence > last - RECENT_EVENTS && sequence <= last;
        const expected = known ? (told.has(sequence) ? { hash: hash(sequence) } : 'missing') : 'unknown';
        expect(recent.get(sequence)).toEqual(expected);
      }
    }),
    { numRuns: 30 },
  );
});

async function expectFault(events: readonly AuditEvent[], fault: object, options: Partial<VerifyOptions> = {}) {
  const verdict = await verify(events, options);
  expect(verdict.faults[0]).toMatchObject({ organization: path, ...fault });
  expect(verdict.faultCount).toBe(1);
}

function verify(events: readonly AuditEvent[], options: Partial<VerifyOptions> = {}): Promise<Verdict> {
  return verifyChain(from(toEntries(events)), { repeats: 'counted', ...options });
}

async function* from(entries: readonly Entry[]): AsyncGenerator<Entry> {
  for (const entry of entries) yield await Promise.resolve(entry);
}

function withEvent(sequence: number, event: AuditEvent): AuditEvent[] {
  return chain.map((one) => (one.sequence === sequence ? event : one));
}

function without(sequence: number): AuditEvent[] {
  return chain.filter((event) => event.sequence !== sequence);
}

function headsOf(events: readonly AuditEvent[]): Map<string, Place> {
  return new Map(events.map((event) => [organizationPath(event), placeOf(event)]));
}

function placeOf({ sequence, hash }: AuditEvent): Place {
  return { sequence, hash };
}

/** Another character of the same kind, so that what comes out is mostly still JSON. */
function flipOneCharacter(event: AuditEvent, place: number): AuditEvent {
  const at = Math.floor(place * event.cloudEvent.length);
  const character = event.cloudEvent.charAt(at);
  const flipped = character === 'a' ? 'b' : /[0-8]/.test(character) ? String(Number(character) + 1) : 'a';
  return { ...event, cloudEvent: event.cloudEvent.slice(0, at) + flipped + event.cloudEvent.slice(at + 1) };
}

function there<T>(value: T | undefined): T {
  if (value === undefined) throw new Error('there is no such event');
  return value;
}

test('canonical text is what the events are made of', () => {
  for (const { cloudEvent } of chain) expect(canonicalJson(JSON.parse(cloudEvent) as object)).toBe(cloudEvent);
});
