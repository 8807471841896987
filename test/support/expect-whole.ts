import { expect } from 'vitest';

import { hashOf, type CloudEvent } from '../../src/keys/chain.js';
import type { AuditEvent, EventType } from '../../src/keys/event.js';
import { isCurrent } from '../../src/keys/key.js';
import { GENESIS_HASH, type OrganizationRef } from '../../src/keys/organization.js';
import type { Store } from '../../src/store/port.js';
import { acme } from './domain.js';
import { ample, keysOf, organizationsOf } from './store-calls.js';

const MAKING: readonly EventType[] = ['key.created', 'key.imported', 'key.rotated'];

/**
 * Holds an organization's events, its record and its keys against each other: sequences without a gap, each hash over
 * what it says it covers, the head at the end, every key made by the event of its sequence, and the count right.
 * @returns the events
 */
export async function expectWhole(store: Store, organization: OrganizationRef = acme): Promise<AuditEvent[]> {
  const query = { types: [], afterSequence: 0, limit: 1_000_000 };
  const { events, head } = await store.listEvents(organization, query, ample());
  let previous = { hash: GENESIS_HASH, time: new Date(0) };
  for (const [at, event] of events.entries()) {
    const envelope = JSON.parse(event.cloudEvent) as CloudEvent;
    expect(event).toMatchObject({ sequence: at + 1, hash: hashOf(envelope), eventId: envelope.id });
    expect(envelope.data).toMatchObject({ sequence: at + 1, previous_hash: previous.hash, hash: event.hash });
    expect(event.time.getTime()).toBeGreaterThanOrEqual(previous.time.getTime());
    previous = event;
  }
  expect(head).toEqual({ sequence: events.length, hash: previous.hash });

  const keys = await keysOf(store, organization);
  for (const key of keys) expect(events[key.sequence - 1]?.keyId).toBe(key.keyId);
  const making = events.filter(({ type }) => MAKING.includes(type));
  expect(keys.map(({ keyId }) => keyId)).toEqual(making.map(({ keyId }) => keyId).reverse());

  const { keyspace, organizationId } = organization;
  const records = await organizationsOf(store);
  const record = records.find((one) => one.keyspace === keyspace && one.organizationId === organizationId);
  expect(record).toMatchObject({ keyCount: keys.filter(isCurrent).length, sequence: head.sequence, hash: head.hash });
  return events;
}
