/**
 * The chain: each event of an organization carries its sequence and the hash of the one before, so that whoever holds
 * the events sees a gap, a fork or an edit. It proves nothing against someone who can rewrite the store.
 */
import { createHash } from 'node:crypto';
import canonicalize from 'canonicalize';

import type { AuditEvent, EventDraft, KeyFacts, OrganizationFacts } from './event.js';
import type { Key } from './key.js';
import { type Organization, organizationPath } from './organization.js';

/** An event as CloudEvents 1.0 JSON; our own fields, in `data`, are snake_case. `docs/audit.md` explains each. */
export interface CloudEvent {
  specversion: '1.0';
  id: string;
  source: string;
  type: string;
  subject: string;
  time: string;
  datacontenttype: 'application/json';
  /** CloudEvents' extension for distributed tracing. */
  traceparent?: string;
  data: CloudEventData;
}

export interface CloudEventData {
  keyspace: string;
  organization_id: string;
  sequence: number;
  previous_hash: string;
  /** Absent while it is being computed, present in every event that leaves. */
  hash?: string;
  caller: string;
  actor: { type: string; id: string };
  request_id?: string;
  /** Absent in an event about the organization itself. */
  key?: KeyJson;
  /** In a rotation: the key whose place was taken. */
  previous_key?: KeyJson & { before: FactsJson; after: FactsJson };
  reason?: string;
  reason_detail?: string;
  before?: FactsJson;
  after?: FactsJson;
}

interface KeyJson {
  key_id: string;
  name: string;
  type: string;
  display: string;
}

interface FactsJson {
  name?: string;
  type?: string;
  state?: string;
  scopes?: readonly string[];
  labels?: Readonly<Record<string, string>>;
  /** RFC 3339 in UTC; null: does not expire. */
  expire_time?: string | null;
  plan?: string;
  suspended?: boolean;
}

/** Before an event's type, in its CloudEvent. */
export const EVENT_TYPE_PREFIX = 'keyreeve.';

/** The `source` of an installation's events. */
export function sourceOf(installation: string): string {
  return `urn:keyreeve:${installation}`;
}

/** Gives drafts their places after the head, in order, and answers the organization with the head that they lead to. */
export function seal(
  organization: Organization,
  drafts: readonly EventDraft[],
  source: string,
): { head: Organization; events: AuditEvent[] } {
  const events: AuditEvent[] = [];
  let head = organization;
  for (const draft of drafts) {
    const sequence = head.sequence + 1;
    // A clock set back must not put an event before the one that it follows.
    const time = head.lastEventTime && head.lastEventTime > draft.time ? head.lastEventTime : draft.time;
    const envelope = toEnvelope(draft, { sequence, previousHash: head.hash, time, source });
    const hash = hashOf(envelope);
    envelope.data.hash = hash;
    const event: AuditEvent = {
      ...draft.mutation.organization,
      eventId: draft.eventId,
      type: draft.type,
      keyId: draft.key?.keyId ?? '',
      ...(draft.previous && { previousKeyId: draft.previous.key.keyId }),
      time,
      sequence,
      hash,
      cloudEvent: canonicalJson(envelope),
    };
    events.push(event);
    head = moveHead(head, event);
  }
  return { head, events };
}

/**
 * The organization with its head behind events that another store sealed.
 * @throws Error where they do not follow the head
 */
export function recover(organization: Organization, events: readonly AuditEvent[]): Organization {
  return events.reduce((head, event) => {
    if (event.sequence !== head.sequence + 1) throw new Error('a recovered event does not follow the head');
    return moveHead(head, event);
  }, organization);
}

function moveHead(head: Organization, { sequence, hash, time }: AuditEvent): Organization {
  return { ...head, sequence, hash, lastEventTime: time, createTime: head.createTime ?? time, updateTime: time };
}

/** SHA-256, lowercase hex, over the canonical JSON of the envelope without `data.hash`. */
export function hashOf(envelope: { readonly data: { readonly hash?: string } }): string {
  const { hash: _, ...data } = envelope.data;
  return createHash('sha256')
    .update(canonicalJson({ ...envelope, data }))
    .digest('hex');
}

/** RFC 8785. */
export function canonicalJson(value: object): string {
  const text = canonicalize(value);
  if (text === undefined) throw new Error('value has no JSON form');
  return text;
}

function toEnvelope(
  draft: EventDraft,
  place: { sequence: number; previousHash: string; time: Date; source: string },
): CloudEvent {
  const { mutation, key, previous } = draft;
  const path = organizationPath(mutation.organization);
  return {
    specversion: '1.0',
    id: draft.eventId,
    source: place.source,
    type: EVENT_TYPE_PREFIX + draft.type,
    subject: key ? `${path}/${key.keyId}` : path,
    time: place.time.toISOString(),
    datacontenttype: 'application/json',
    ...(mutation.traceparent !== undefined && { traceparent: mutation.traceparent }),
    data: {
      keyspace: mutation.organization.keyspace,
      organization_id: mutation.organization.organizationId,
      sequence: place.sequence,
      previous_hash: place.previousHash,
      caller: mutation.caller,
      actor: { type: mutation.actor.type, id: mutation.actor.id },
      ...(mutation.request && { request_id: mutation.request.requestId }),
      ...(key && { key: toKeyJson(key) }),
      ...(previous && {
        previous_key: {
          ...toKeyJson(previous.key),
          before: toFactsJson(previous.before),
          after: toFactsJson(previous.after),
        },
      }),
      ...(draft.reason && { reason: draft.reason }),
      ...(draft.reasonDetail && { reason_detail: draft.reasonDetail }),
      ...(draft.before && { before: toFactsJson(draft.before) }),
      ...(draft.after && { after: toFactsJson(draft.after) }),
    },
  };
}

function toKeyJson({ keyId, name, type, display }: Key): KeyJson {
  return { key_id: keyId, name, type, display };
}

function toFactsJson({ expireTime, ...facts }: KeyFacts & OrganizationFacts): FactsJson {
  return { ...facts, ...(expireTime !== undefined && { expire_time: expireTime?.toISOString() ?? null }) };
}
