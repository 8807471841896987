/** Events as their text tells them. Whoever wrote the text may not have been Keyreeve, so nothing is taken for granted. */
import { z } from 'zod';

import { canonicalJson, EVENT_TYPE_PREFIX, hashOf } from '../keys/chain.js';
import { EVENT_TYPES, type EventType, type KeyFacts, type OrganizationFacts } from '../keys/event.js';
import { KEY_STATES, REVOCATION_REASONS } from '../keys/key.js';
import type { LostEvent } from '../keys/reconcile.js';

const hashText = z.string().regex(/^[0-9a-f]{64}$/);

/** What the chain needs of an event. Fields that a later version adds are covered by the hash like any. */
const eventShape = z.object({
  id: z.string(),
  source: z.string(),
  type: z.string(),
  subject: z.string(),
  time: z.string(),
  data: z.object({
    keyspace: z.string(),
    organization_id: z.string(),
    sequence: z.int().min(1),
    previous_hash: hashText,
    hash: hashText,
    key: z.object({ key_id: z.string() }).optional(),
    previous_key: z.object({ key_id: z.string() }).optional(),
  }),
});
export type ReadEvent = z.infer<typeof eventShape>;

/** Undefined where it is no event. */
export function parseEvent(text: string): ReadEvent | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  // The value itself, since what is parsed by a shape has lost the other fields, which are hashed as well.
  return isEvent(value) ? value : undefined;
}

function isEvent(value: unknown): value is ReadEvent {
  return eventShape.safeParse(value).success;
}

/** What is wrong with the event's content by itself; undefined where it is as it was sealed. */
export function whatIsAltered(event: ReadEvent, text: string): string | undefined {
  try {
    if (canonicalJson(event) !== text) return 'its text is not in canonical form: it was written anew';
    if (hashOf(event) !== event.data.hash) return 'its content does not have the hash that it states';
  } catch {
    return 'its content has no canonical form';
  }
  return undefined;
}

const time = z.iso.datetime().transform((text) => new Date(text));
const keyShape = z.object({ key_id: z.string(), name: z.string(), display: z.string() });
const keyFactsShape = z.object({
  name: z.string().optional(),
  labels: z.record(z.string(), z.string()).optional(),
  state: z.enum(KEY_STATES).optional(),
  scopes: z.array(z.string()).optional(),
  expire_time: time.nullable().optional(),
});
const types = EVENT_TYPES.map((type) => `${EVENT_TYPE_PREFIX}${type}` as const);

/** What putting an event back into a store needs of it. */
const lostShape = z.object({
  type: z.enum(types).transform((type) => type.slice(EVENT_TYPE_PREFIX.length) as EventType),
  time,
  data: z.object({
    key: keyShape.optional(),
    previous_key: keyShape.extend({ after: keyFactsShape }).optional(),
    reason: z.enum(REVOCATION_REASONS).optional(),
    after: keyFactsShape.extend({ plan: z.string().optional(), suspended: z.boolean().optional() }).default({}),
  }),
});

/** An event that is whole, as one to be put back; undefined where this version does not know what it tells. */
export function toLostEvent(event: ReadEvent, text: string): LostEvent | undefined {
  const parsed = lostShape.safeParse(event);
  if (!parsed.success) return undefined;
  const { type, data } = parsed.data;
  const { key, previous_key: previous, reason, after } = data;
  return {
    event: {
      keyspace: event.data.keyspace,
      organizationId: event.data.organization_id,
      eventId: event.id,
      type,
      keyId: key?.key_id ?? '',
      ...(previous && { previousKeyId: previous.key_id }),
      time: parsed.data.time,
      sequence: event.data.sequence,
      hash: event.data.hash,
      cloudEvent: text,
    },
    previousHash: event.data.previous_hash,
    ...(key && { key: { name: key.name, display: key.display } }),
    after: { ...toKeyFacts(after), ...toSettings(after) },
    ...(previous && {
      previous: { name: previous.name, display: previous.display, after: toKeyFacts(previous.after) },
    }),
    ...(reason && { reason }),
  };
}

function toKeyFacts({
  name,
  labels,
  state,
  scopes,
  expire_time: expireTime,
}: z.output<typeof keyFactsShape>): KeyFacts {
  return {
    ...(name !== undefined && { name }),
    ...(labels && { labels }),
    ...(state && { state }),
    ...(scopes && { scopes }),
    ...(expireTime !== undefined && { expireTime }),
  };
}

function toSettings({ plan, suspended }: z.output<typeof lostShape>['data']['after']): OrganizationFacts {
  return { ...(plan !== undefined && { plan }), ...(suspended !== undefined && { suspended }) };
}
