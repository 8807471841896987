/**
 * The chain: each event of an organization carries its sequence and the hash of the one before, so that whoever holds
 * the events sees a gap, a fork or an edit. It proves nothing against someone who can rewrite the store.
 */
import { createHash } from 'node:crypto';
import canonicalize from 'canonicalize';

import type { AuditEvent, EventDraft, KeyFacts } from './event.js';
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
  key: { key_id: string; name: string; type: string; display: string };
  reason?: string;
  reason_detail?: string;
  before?: FactsJson;
  after?: FactsJson;
}

interface FactsJson {
  name?: string;
  type?: string;
  state?: string;
  scopes?: readonly string[];
  labels?: Readonly<Record<string, string>>;
  /** RFC 3339 in UTC; null: does not expire. */
  expire_time?: string | null;
}

/** Before an event's type, in its CloudEvent. */
export const EVENT_TYPE_PREFIX = 'keyreeve.';

/** The `source` of an installation's events. */
export function sourceOf(installation: string): string {
  return `urn:keyreeve:${installation}`;
}

type Head = Pick<Organization, 'sequence' | 'hash' | 'lastEventTime' | 'createTime' | 'updateTime'>;

/** Gives drafts their places after the head, in order, and answers the head that they lead to. */
export function seal(
  head: Organization,
  drafts: readonly EventDraft[],
  source: string,
): { head: Partial<Head>; events: AuditEvent[] } {
  const events: AuditEvent[] = [];
  let { sequence, hash } = head;
  let time = head.lastEventTime;
  for (const draft of drafts) {
    sequence += 1;
    // A clock set back must not put an event before the one that it follows.
    time = time && time > draft.time ? time : draft.time;
    const envelope = toEnvelope(draft, { sequence, previousHash: hash, time, source });
    hash = hashOf(envelope);
    envelope.data.hash = hash;
    events.push({
      ...draft.mutation.organization,
      eventId: draft.eventId,
      type: draft.type,
      keyId: draft.key.keyId,
      time,
      sequence,
      hash,
      cloudEvent: canonicalJson(envelope),
    });
  }
  if (!time || events.length === 0) return { head: {}, events };
  return {
    head: { sequence, hash, lastEventTime: time, createTime: head.createTime ?? time, updateTime: time },
    events,
  };
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
  const { mutation, key } = draft;
  return {
    specversion: '1.0',
    id: draft.eventId,
    source: place.source,
    type: EVENT_TYPE_PREFIX + draft.type,
    subject: `${organizationPath(mutation.organization)}/${key.keyId}`,
    time: place.time.toISOString(),
    datacontenttype: 'application/json',
    data: {
      keyspace: mutation.organization.keyspace,
      organization_id: mutation.organization.organizationId,
      sequence: place.sequence,
      previous_hash: place.previousHash,
      caller: mutation.caller,
      actor: { type: mutation.actor.type, id: mutation.actor.id },
      ...(mutation.request && { request_id: mutation.request.requestId }),
      key: { key_id: key.keyId, name: key.name, type: key.type, display: key.display },
      ...(draft.reason && { reason: draft.reason }),
      ...(draft.reasonDetail && { reason_detail: draft.reasonDetail }),
      ...(draft.before && { before: toFactsJson(draft.before) }),
      ...(draft.after && { after: toFactsJson(draft.after) }),
    },
  };
}

function toFactsJson({ expireTime, ...facts }: KeyFacts): FactsJson {
  return { ...facts, ...(expireTime !== undefined && { expire_time: expireTime?.toISOString() ?? null }) };
}
