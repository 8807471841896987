import { EVENT_TYPE_PREFIX } from '../keys/chain.js';
import { type Clock, Deadline } from '../keys/clock.js';
import type { AuditEvent, EventType } from '../keys/event.js';
import { type Organization, organizationPath, type OrganizationRef } from '../keys/organization.js';
import type { Entry, Place } from './verify-chain.js';

/** What reading a store's events takes. */
export interface EventStore {
  organizations(): AsyncIterable<Organization>;
  listEvents(
    organization: OrganizationRef,
    query: { readonly types: readonly EventType[]; readonly afterSequence: number; readonly limit: number },
    deadline: Deadline,
  ): Promise<{ readonly events: readonly AuditEvent[]; readonly head: Place }>;
}

const PAGE_EVENTS = 500;
const PAGE_MS = 10_000;

/** Every organization's events by sequence, one organization after the other. */
export async function* readStore(store: EventStore, clock: Clock): AsyncGenerator<Entry> {
  for await (const organization of store.organizations()) {
    const path = organizationPath(organization);
    for await (const { cloudEvent, type, ...event } of eventsOf(store, organization, clock)) {
      const { sequence, hash, eventId, keyId, previousKeyId = '', time } = event;
      const ids = { eventId, keyId, previousKeyId };
      const claims = { organization: path, sequence, hash, ...ids, type: EVENT_TYPE_PREFIX + type, time };
      yield { text: cloudEvent, position: `${path} event ${sequence}`, claims };
    }
  }
}

async function* eventsOf(store: EventStore, organization: OrganizationRef, clock: Clock): AsyncGenerator<AuditEvent> {
  // Each page begins with the last sequence of the one before: a second event of that sequence must not go unread.
  let afterSequence = 0;
  let known = 0;
  for (;;) {
    const query = { types: [], afterSequence, limit: known + PAGE_EVENTS };
    const { events } = await store.listEvents(organization, query, Deadline.after(PAGE_MS, clock));
    yield* events.slice(known);
    const last = events.at(-1);
    if (!last || events.length < query.limit) return;
    afterSequence = last.sequence - 1;
    known = events.filter(({ sequence }) => sequence === last.sequence).length;
  }
}

/** Where each organization's chain ends. */
export async function readHeads(store: Pick<EventStore, 'organizations'>): Promise<Map<string, Place>> {
  const heads = new Map<string, Place>();
  for await (const organization of store.organizations()) {
    const { sequence, hash } = organization;
    if (sequence > 0) heads.set(organizationPath(organization), { sequence, hash });
  }
  return heads;
}
