/** Looks for events that a sink has and the store lacks, as after a store was put back to an earlier state. */
import { type Clock, Deadline } from '../keys/clock.js';
import { organizationPath, type OrganizationRef } from '../keys/organization.js';
import type { LostEvent } from '../keys/reconcile.js';
import { parseEvent, type ReadEvent, toLostEvent, whatIsAltered } from './read-event.js';
import type { EventStore } from './read-store.js';
import type { Entry, Place } from './verify-chain.js';

export interface FindLostOptions {
  /** Events of other sources are passed over. */
  readonly source: string;
  readonly clock: Clock;
  /** Called every thousand events. */
  readonly onProgress?: (progress: { readonly events: number; readonly share?: number }) => void;
}

export interface Found {
  /** All that were read, of other sources too. */
  readonly events: number;
  /** No events, or altered ones: nothing can be said of them here. */
  readonly unreadable: number;
  /** Those of which the store lacks an event, by name. */
  readonly organizations: readonly Lost[];
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

/**
 * @param entries each organization's first copies in order, which is how a relay publishes
 * @throws what reading the entries throws, or a StoreFault
 */
export async function findLost(
  entries: AsyncIterable<Entry>,
  store: Pick<EventStore, 'listEvents'>,
  { source, clock, onProgress }: FindLostOptions,
): Promise<Found> {
  const search = new Search(store, clock);
  let batch: Whole[] = [];
  let events = 0;
  let unreadable = 0;
  for await (const { text, partial, share } of entries) {
    if (partial) continue;
    events += 1;
    const event = parseEvent(text);
    if (!event || whatIsAltered(event, text) !== undefined) unreadable += 1;
    else if (event.source === source) batch.push({ event, text });
    if (batch.length === BATCH_EVENTS) {
      await search.take(batch);
      batch = [];
    }
    if (events % BATCH_EVENTS === 0) onProgress?.({ events, ...(share !== undefined && { share }) });
  }
  await search.take(batch);
  return { events, unreadable, organizations: search.lost() };
}

interface Whole {
  readonly event: ReadEvent;
  readonly text: string;
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

  lost(): Lost[] {
    // Partitions are read in no certain order, and two readings are to be compared.
    return [...this.#losing].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, lost]) => lost);
  }

  async take(batch: readonly Whole[]): Promise<void> {
    const groups = [...groupByOrganization(batch).values()];
    for (let at = 0; at < groups.length; at += ORGANIZATIONS_AT_ONCE) {
      await Promise.all(groups.slice(at, at + ORGANIZATIONS_AT_ONCE).map((group) => this.#judge(group)));
    }
  }

  async #judge([first, ...others]: readonly [Whole, ...Whole[]]): Promise<void> {
    const { keyspace, organization_id: organizationId } = first.event.data;
    const organization = { keyspace, organizationId };
    const group = [first, ...others];
    const stored = await this.#read(organization, group);
    for (const { event, text } of group) {
      const { sequence, hash } = event.data;
      if (stored.hashes.get(sequence) === hash) continue;
      const losing = this.#losing.get(organizationPath(organization)) ?? begin(organization, stored.head);
      this.#losing.set(organizationPath(organization), losing);
      add(losing, event, text);
    }
  }

  /** The stored events' hashes from the group's first sequence to its last, and the head. */
  async #read(organization: OrganizationRef, group: readonly Whole[]) {
    const sequences = group.map(({ event }) => event.data.sequence);
    const last = sequences.reduce((a, b) => Math.max(a, b));
    const hashes = new Map<number, string>();
    let afterSequence = sequences.reduce((a, b) => Math.min(a, b)) - 1;
    for (;;) {
      const limit = Math.min(PAGE_EVENTS, last - afterSequence);
      const query = { types: [], afterSequence, limit };
      const deadline = Deadline.after(PAGE_MS, this.#clock);
      const { events, head } = await this.#store.listEvents(organization, query, deadline);
      for (const { sequence, hash } of events) if (sequence <= last) hashes.set(sequence, hash);
      afterSequence = events.at(-1)?.sequence ?? last;
      if (events.length < limit || afterSequence >= last) return { hashes, head };
    }
  }
}

function groupByOrganization(batch: readonly Whole[]): Map<string, [Whole, ...Whole[]]> {
  const groups = new Map<string, [Whole, ...Whole[]]>();
  for (const whole of batch) {
    const { keyspace, organization_id: organizationId } = whole.event.data;
    const path = organizationPath({ keyspace, organizationId });
    const group = groups.get(path);
    if (group) group.push(whole);
    else groups.set(path, [whole]);
  }
  return groups;
}

function begin(organization: OrganizationRef, head: Place): Losing {
  return { organization, head, events: [], count: 0, highest: 0 };
}

/** Takes up an event that is not in the store. */
function add(losing: Losing, event: ReadEvent, text: string): void {
  const { sequence, hash, previous_hash: previousHash } = event.data;
  const last: Place = losing.events.at(-1)?.event ?? losing.head;
  const known = sequence > losing.head.sequence ? losing.events[sequence - losing.head.sequence - 1]?.event : undefined;
  if (known?.hash === hash) return; // a repeat
  if (sequence > losing.highest) {
    losing.count += 1;
    losing.highest = sequence;
  }
  if (losing.obstacle !== undefined) return;
  if (known) losing.obstacle = `there are two different events ${sequence}`;
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
