/**
 * Looks for events that a sink has and the store lacks, as after a store was put back to an earlier state. What was
 * damaged since may have been a revocation, so nothing that cannot be read is passed over in silence.
 */
import { type Clock, Deadline } from '../keys/clock.js';
import type { AuditEvent } from '../keys/event.js';
import { organizationPath, type OrganizationRef } from '../keys/organization.js';
import type { LostEvent } from '../keys/reconcile.js';
import { parseEvent, type ReadEvent, toLostEvent, whatIsAltered } from './read-event.js';
import type { EventStore } from './read-store.js';
import type { Entry, Place } from './verify-chain.js';

export interface FindLostOptions {
  /** Events of other sources are passed over. */
  readonly source: string;
  readonly clock: Clock;
  /** Read no further once so many are lost. Absent: read all. */
  readonly lostMax?: number;
  /** Called every thousand events. */
  readonly onProgress?: (progress: { readonly events: number; readonly share?: number }) => void;
}

export interface Found {
  /** Those of the source, which were compared with what is stored. */
  readonly events: number;
  /** Whole events of other sources, which were passed over. */
  readonly foreign: number;
  readonly unreadable: Unreadable;
  /** Those of which the store lacks an event, by name. */
  readonly organizations: readonly Lost[];
}

/** What is no event, or an altered one of which nobody knows whose it was. */
export interface Unreadable {
  readonly count: number;
  /** Where the first ten lie. */
  readonly positions: readonly string[];
}

export interface Lost {
  readonly organization: OrganizationRef;
  /** How many the store lacks. */
  readonly count: number;
  /** Where the store's chain ends. */
  readonly head: Place;
  /** Those that link to the head and to one another, in order. */
  readonly events: readonly LostEvent[];
  /** Why the rest cannot follow them: for people, to stand behind a colon. */
  readonly obstacle?: string;
}

const BATCH_EVENTS = 1000;
const PAGE_EVENTS = 500;
const ORGANIZATIONS_AT_ONCE = 8;
const PAGE_MS = 10_000;
const POSITIONS_MAX = 10;

/**
 * @param entries each organization's first copies in order, which is how a relay publishes
 * @throws what reading the entries throws, or a StoreFault
 */
export async function findLost(
  entries: AsyncIterable<Entry>,
  store: Pick<EventStore, 'listEvents'>,
  { source, clock, lostMax = Number.POSITIVE_INFINITY, onProgress }: FindLostOptions,
): Promise<Found> {
  const search = new Search(store, clock);
  let batch: Own[] = [];
  let read = 0;
  let events = 0;
  let foreign = 0;
  const unreadable = { count: 0, positions: [] as string[] };
  for await (const { text, position, partial, share } of entries) {
    if (partial) continue;
    read += 1;
    const event = parseEvent(text);
    const altered = event && whatIsAltered(event, text);
    if (event?.source === source) {
      events += 1;
      batch.push({ event, text, position, ...(altered !== undefined && { altered }) });
    } else if (event && altered === undefined) {
      foreign += 1;
    } else {
      unreadable.count += 1;
      if (unreadable.count <= POSITIONS_MAX) unreadable.positions.push(position);
    }
    if (batch.length === BATCH_EVENTS) {
      await search.take(batch);
      batch = [];
      if (search.lostCount() >= lostMax) break;
    }
    if (read % BATCH_EVENTS === 0) onProgress?.({ events: read, ...(share !== undefined && { share }) });
  }
  await search.take(batch);
  return { events, foreign, unreadable, organizations: search.lost() };
}

/** `line 3, line 7 and 4 more`. */
export function whereUnreadable({ count, positions }: Unreadable): string {
  const more = count - positions.length;
  return positions.join(', ') + (more > 0 ? ` and ${more.toLocaleString('en-US')} more` : '');
}

/** An event of the source. */
interface Own {
  readonly event: ReadEvent;
  readonly text: string;
  readonly position: string;
  /** What was altered in it, to stand behind a colon: then nothing that it tells can be relied on. */
  readonly altered?: string;
}

/** What has been found of one organization. */
interface Losing {
  readonly organization: OrganizationRef;
  readonly head: Place;
  readonly events: LostEvent[];
  count: number;
  /** The highest sequence met, so that repeats are not counted. */
  highest: number;
  obstacle?: string;
}

class Search {
  readonly #store: Pick<EventStore, 'listEvents'>;
  readonly #clock: Clock;
  readonly #losing = new Map<string, Losing>();

  constructor(store: Pick<EventStore, 'listEvents'>, clock: Clock) {
    this.#store = store;
    this.#clock = clock;
  }

  lostCount(): number {
    return [...this.#losing.values()].reduce((sum, { count }) => sum + count, 0);
  }

  lost(): Lost[] {
    // Partitions are read in no certain order, and two readings are to be compared.
    return [...this.#losing].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, lost]) => lost);
  }

  async take(batch: readonly Own[]): Promise<void> {
    const groups = [...groupByOrganization(batch).values()];
    for (let at = 0; at < groups.length; at += ORGANIZATIONS_AT_ONCE) {
      await Promise.all(groups.slice(at, at + ORGANIZATIONS_AT_ONCE).map((group) => this.#judge(group)));
    }
  }

  async #judge([first, ...others]: readonly [Own, ...Own[]]): Promise<void> {
    const { keyspace, organization_id: organizationId } = first.event.data;
    const organization = { keyspace, organizationId };
    const group = [first, ...others];
    const stored = await this.#read(organization, group);
    for (const own of group) {
      const { event, text, altered } = own;
      const same = stored.events.get(event.data.sequence);
      if (altered === undefined ? same?.hash === event.data.hash : same?.cloudEvent === text) continue;
      const losing = this.#losing.get(organizationPath(organization)) ?? begin(organization, stored.head);
      this.#losing.set(organizationPath(organization), losing);
      add(losing, own);
    }
  }

  /** The stored events from the group's first sequence to its last, and the head. */
  async #read(organization: OrganizationRef, group: readonly Own[]) {
    const sequences = group.map(({ event }) => event.data.sequence);
    const last = sequences.reduce((a, b) => Math.max(a, b));
    const stored = new Map<number, Pick<AuditEvent, 'hash' | 'cloudEvent'>>();
    let afterSequence = sequences.reduce((a, b) => Math.min(a, b)) - 1;
    for (;;) {
      const limit = Math.min(PAGE_EVENTS, last - afterSequence);
      const query = { types: [], afterSequence, limit };
      const deadline = Deadline.after(PAGE_MS, this.#clock);
      const { events, head } = await this.#store.listEvents(organization, query, deadline);
      for (const event of events) if (event.sequence <= last) stored.set(event.sequence, event);
      afterSequence = events.at(-1)?.sequence ?? last;
      if (events.length < limit || afterSequence >= last) return { events: stored, head };
    }
  }
}

function groupByOrganization(batch: readonly Own[]): Map<string, [Own, ...Own[]]> {
  const groups = new Map<string, [Own, ...Own[]]>();
  for (const own of batch) {
    const { keyspace, organization_id: organizationId } = own.event.data;
    const path = organizationPath({ keyspace, organizationId });
    const group = groups.get(path);
    if (group) group.push(own);
    else groups.set(path, [own]);
  }
  return groups;
}

function begin(organization: OrganizationRef, head: Place): Losing {
  return { organization, head, events: [], count: 0, highest: 0 };
}

/** Takes up an event that is not in the store. */
function add(losing: Losing, { event, text, position, altered }: Own): void {
  const { sequence, hash, previous_hash: previousHash } = event.data;
  const last: Place = losing.events.at(-1)?.event ?? losing.head;
  const known = sequence > losing.head.sequence ? losing.events[sequence - losing.head.sequence - 1]?.event : undefined;
  if (altered === undefined && known?.hash === hash) return; // a repeat
  if (sequence > losing.highest) {
    losing.count += 1;
    losing.highest = sequence;
  }
  if (losing.obstacle !== undefined) return;
  if (altered !== undefined) losing.obstacle = `event ${sequence} was altered (${position}): ${altered}`;
  else if (known) losing.obstacle = `there are two different events ${sequence}`;
  else if (sequence <= losing.head.sequence) losing.obstacle = `the store has another event ${sequence}, or none`;
  else if (sequence > last.sequence + 1) losing.obstacle = `${whichSequences(last.sequence + 1, sequence - 1)} missing`;
  else if (previousHash !== last.hash) losing.obstacle = `event ${sequence} follows another event ${last.sequence}`;
  else {
    const lost = toLostEvent(event, text);
    if (lost) losing.events.push(lost);
    else losing.obstacle = `event ${sequence} is none that this version knows`;
  }
}

function whichSequences(from: number, to: number): string {
  return from === to ? `event ${from} is` : `events ${from} to ${to} are`;
}
