/**
 * One organization's lost events, put back change by change where they are too many for one. What they took away is
 * taken away together with the last of them, so that until then the sink has events that the store lacks, and no service
 * starts. Where an interrupted run began is remembered: its events are in the store, and nothing was done about them.
 */
import type { Lost } from '../../audit/find-lost.js';
import { parseEvent, toLostEvent } from '../../audit/read-event.js';
import { unchanged } from '../../keys/change.js';
import { type Clock, Deadline } from '../../keys/clock.js';
import { newEventId } from '../../keys/ids.js';
import type { Keyspace } from '../../keys/keyspace.js';
import { organizationPath, type OrganizationRef } from '../../keys/organization.js';
import { judgeLosses, keysNamed, type LostEvent, type Losses, putBack, reconcile } from '../../keys/reconcile.js';
import { isRefusal, type Refusal } from '../../keys/refusal.js';
import type { Store } from '../../store/port.js';

/** Of one organization: what its store lacks, and what became of it. */
export interface Outcome {
  readonly lost: Lost;
  /** Absent where an obstacle stands in the way. */
  readonly losses?: Losses;
  /** For people, to stand behind a colon. */
  readonly obstacle?: string;
}

export interface SettleOptions {
  readonly keyspaces: ReadonlyMap<string, Keyspace>;
  /** Otherwise nothing is changed. */
  readonly apply: boolean;
  readonly clock: Clock;
  /** How many lost events one change puts back. */
  readonly eventsPerChange?: number;
}

/** MongoDB gives a transaction a minute. */
const EVENTS_PER_CHANGE = 500;
const CHANGE_MS = 120_000;
const PAGE_EVENTS = 500;
const PAGE_MS = 10_000;
const CHANGED_MEANWHILE = 'the store has changed meanwhile; run this again';

/** @throws StoreFault; then running it again goes on where it ended */
export async function settle(lost: Lost, store: Store, options: SettleOptions): Promise<Outcome> {
  const { organization, head, events, obstacle } = lost;
  if (obstacle !== undefined) return { lost, obstacle };
  const { keyspaces, apply, clock, eventsPerChange = EVENTS_PER_CHANGE } = options;
  const unfinished = unfinishedOf(organization, store);
  const begun = await unfinished.first();
  const before = await readFrom(begun ?? head.sequence + 1, lost, store, clock);
  if (!before) return { lost, obstacle: 'what an interrupted run put back is none that this version knows' };

  const many = apply && events.length > eventsPerChange;
  // Before the first of them is in the store: a mark that comes too early only has more read.
  if (many && begun === undefined) await unfinished.remember(head.sequence + 1);
  let at = 0;
  for (; apply && events.length - at > eventsPerChange; at += eventsPerChange) {
    const first = events.slice(at, at + eventsPerChange);
    const done = orFail(
      await store.change({ organization }, (state) => putBack(state, first), Deadline.after(CHANGE_MS, clock)),
    );
    if (!done) return { lost, obstacle: CHANGED_MEANWHILE };
  }

  const ask = {
    organization,
    putBack: [...before, ...events.slice(0, at)],
    lost: events.slice(at),
    keyspace: keyspaces.get(organization.keyspace),
  };
  const keyIds = keysNamed([...before, ...events]);
  const draw = { now: clock.now(), eventIds: [...keyIds, ''].map(newEventId) };
  const losses = orFail(
    await store.change(
      { organization, keyIds },
      (state) => (apply ? reconcile(state, ask, draw) : unchanged(judgeLosses(state, ask))),
      Deadline.after(CHANGE_MS, clock),
    ),
  );
  if (!losses) return { lost, obstacle: CHANGED_MEANWHILE };
  if (many || (apply && begun !== undefined)) await unfinished.forget();
  return { lost, losses };
}

/**
 * The mark of a run that has begun and not ended, kept like the position of a sink: which event was the first that it
 * put back.
 */
function unfinishedOf(organization: OrganizationRef, { outbox }: Store) {
  const place = { sink: `reconcile/${organizationPath(organization)}`, lane: 0 };
  return {
    async first(): Promise<number | undefined> {
      const end = (await outbox.positions(place.sink)).get(place.lane) ?? 0;
      return end > 0 ? end : undefined;
    },
    remember: (sequence: number) => outbox.remember([{ ...place, end: sequence }]),
    forget: () => outbox.remember([{ ...place, end: 0 }]),
  };
}

/** The stored events from this one up to the head; undefined where this version does not know one. */
async function readFrom(
  sequence: number,
  { organization, head }: Lost,
  store: Store,
  clock: Clock,
): Promise<LostEvent[] | undefined> {
  const read: LostEvent[] = [];
  for (let after = sequence - 1; after < head.sequence;) {
    const query = { types: [], afterSequence: after, limit: Math.min(PAGE_EVENTS, head.sequence - after) };
    const { events } = await store.listEvents(organization, query, Deadline.after(PAGE_MS, clock));
    for (const { cloudEvent } of events) {
      const event = parseEvent(cloudEvent);
      const known = event && toLostEvent(event, cloudEvent);
      if (!known) return undefined;
      read.push(known);
    }
    after = events.at(-1)?.sequence ?? head.sequence;
  }
  return read;
}

function orFail<T>(answer: T | Refusal): T {
  if (isRefusal(answer)) throw new Error(`reconciling was refused: ${answer.refused}`);
  return answer;
}
