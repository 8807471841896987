/** Records as documents and back: the only file that knows both shapes. Fields that have no value are absent. */
import { Binary, Int32, Long, type Timestamp } from 'mongodb';

import type { SinkPosition } from '../../audit/outbox.js';
import type { Actor } from '../../keys/actor.js';
import type { CommittedEvent, RequestRecord } from '../../keys/change.js';
import type { Digest } from '../../keys/digest.js';
import type { AuditEvent, EventType } from '../../keys/event.js';
import { type Key, type RevocationReason, type Standing, type VerifiableKey, isCurrent } from '../../keys/key.js';
import type { KeyspaceFacts } from '../../keys/keyspace-facts.js';
import {
  type Organization,
  type OrganizationRef,
  organizationPath,
  type VerifiableOrganization,
} from '../../keys/organization.js';
import type { Writable } from '../../writable.js';

/** Written as Long, so that the field has one type whatever its size; the driver reads it as a number. */
export type Int64 = Long | number;

export const UNREVOKED: readonly Standing['kind'][] = ['usable', 'disabled'];

interface RefFields {
  keyspace: string;
  organization_id: string;
}

export interface KeyRow extends RefFields {
  /** `key_id`. */
  _id: string;
  sequence: Int64;
  revision: Int64;
  public_id?: string;
  client_id?: string;
  lineage_id: string;
  rotated_from?: string;
  superseded_by?: string;
  name: string;
  name_is_unique: boolean;
  /** The name, while no other key of the organization may have it. */
  unique_name?: string;
  /** Neither revoked nor superseded. */
  current: boolean;
  type: string;
  display: string;
  digest: Binary;
  digest_algorithm: Digest['algorithm'];
  pepper_version: Int32 | number;
  scopes: string[];
  /** Pairs, since not every text can be a field's name. */
  labels: { name: string; value: string }[];
  standing: Standing['kind'];
  revoke_time?: Date;
  revoked_by?: Actor;
  revocation_reason?: RevocationReason;
  reason_detail?: string;
  create_time: Date;
  created_by: Actor;
  expire_time?: Date;
}

/** Of a key's document what a verification needs. */
export type VerifiableRow = Pick<KeyRow, '_id' | (typeof VERIFIABLE_FIELDS)[number]>;

const VERIFIABLE_FIELDS = [
  'keyspace',
  'organization_id',
  'revision',
  'public_id',
  'client_id',
  'lineage_id',
  'name',
  'type',
  'digest',
  'pepper_version',
  'scopes',
  'labels',
  'standing',
  'expire_time',
] as const satisfies (keyof KeyRow)[];

/** What to read of a key's document to have a `VerifiableRow`. */
export const VERIFIABLE = projectionOf(VERIFIABLE_FIELDS);

export interface OrganizationRow extends RefFields {
  /** `keyspace/organization_id`. */
  _id: string;
  plan?: string;
  suspended: boolean;
  /** Absent: 0, in documents that schema version 1 wrote. */
  settings_revision?: Int64;
  key_count: Int64;
  sequence: Int64;
  hash: string;
  last_event_time?: Date;
  create_time?: Date;
  update_time?: Date;
  revision: Int64;
}

export type VerifiableOrganizationRow = Pick<OrganizationRow, '_id' | (typeof VERIFIABLE_ORGANIZATION_FIELDS)[number]>;

const VERIFIABLE_ORGANIZATION_FIELDS = [
  'keyspace',
  'organization_id',
  'plan',
  'suspended',
  'revision',
] as const satisfies (keyof OrganizationRow)[];

/** What to read of an organization's document to have a `VerifiableOrganizationRow`. */
export const VERIFIABLE_ORGANIZATION = projectionOf(VERIFIABLE_ORGANIZATION_FIELDS);

export interface EventRow extends RefFields {
  /** `event_id`. */
  _id: string;
  /** `keyspace/organization_id`: one field, so that an index finds many organizations passed over at once. */
  organization: string;
  sequence: Int64;
  type: EventType;
  key_id: string;
  previous_key_id?: string;
  time: Date;
  hash: string;
  cloud_event: string;
  published: boolean;
}

export interface RequestRow {
  _id: RequestRowId;
  hash: string;
  key_ids: string[];
  create_time: Date;
}

/** Compared as a whole: the fields' order counts. */
export interface RequestRowId extends RefFields {
  caller: string;
  method: string;
  request_id: string;
}

export interface KeyspaceRow {
  /** The name. */
  _id: string;
  kind: KeyspaceFacts['kind'];
  prefix: string;
  body_length: Int32 | number;
  unique_names: boolean;
}

export interface LastUseRow {
  /** `key_id`. */
  _id: string;
  time: Date;
}

/** The window that was opened last, and what was last taken from it: the answer to whoever took it. */
export interface BudgetRow {
  /** `lineage_id`. */
  _id: string;
  opened_at: Date;
  taken: Int64;
  last_taken: Int64;
  last_taken_at: Date;
}

export interface PositionRow {
  _id: PositionRowId;
  end: Int64;
}

/** Compared as a whole: the fields' order counts. */
export interface PositionRowId {
  sink: string;
  lane: Int32 | number;
}

export interface PepperRow {
  /** The version. */
  _id: Int32 | number;
  fingerprint: string;
}

/** One document at most. */
export interface LeadershipRow {
  _id: 'leader';
  holder: string;
  count: Int64;
}

/** A process that may answer from its memory. */
export interface ReplicaRow {
  /** Random, of one membership: a process that has lost its place begins another. */
  _id: string;
  /** Greater with each renewal of its lease. */
  number: Int64;
  /** The replica was told of every change until then. */
  applied: Timestamp;
  lease_ms: Int32 | number;
}

/** One document of each at most. */
export interface MetaRow {
  _id: 'schema' | 'installation' | 'fence';
  /** Of the fence: how often it was moved. */
  count?: Int64;
  /** Of the schema. */
  version?: Int32 | number;
  /** Of the installation's events, since the first opening. */
  source?: string;
}

export function toRefFields({ keyspace, organizationId }: OrganizationRef): RefFields {
  return { keyspace, organization_id: organizationId };
}

export function toKeyRow(key: Key): KeyRow {
  const current = isCurrent(key);
  return {
    _id: key.keyId,
    ...toRefFields(key),
    sequence: Long.fromNumber(key.sequence),
    revision: Long.fromNumber(key.revision),
    ...(key.publicId !== undefined && { public_id: key.publicId }),
    ...(key.clientId !== undefined && { client_id: key.clientId }),
    lineage_id: key.lineageId,
    ...(key.rotatedFrom !== undefined && { rotated_from: key.rotatedFrom }),
    ...(key.supersededBy !== undefined && { superseded_by: key.supersededBy }),
    name: key.name,
    name_is_unique: key.nameIsUnique,
    ...(current && key.nameIsUnique && { unique_name: key.name }),
    current,
    type: key.type,
    display: key.display,
    ...toDigestFields(key.digest),
    scopes: [...key.scopes],
    labels: Object.entries(key.labels).map(([name, value]) => ({ name, value })),
    standing: key.standing.kind,
    ...toRevocation(key.standing),
    create_time: key.createTime,
    created_by: toActor(key.createdBy),
    ...(key.expireTime && { expire_time: key.expireTime }),
  };
}

/** @param lastUseTime as of the same moment; absent: never used, or not asked for */
export function fromKeyRow(row: KeyRow, lastUseTime?: Date): Key {
  return {
    ...fromVerifiableRow(row),
    ...(row.rotated_from !== undefined && { rotatedFrom: row.rotated_from }),
    ...(row.superseded_by !== undefined && { supersededBy: row.superseded_by }),
    nameIsUnique: row.name_is_unique,
    display: row.display,
    digest: {
      algorithm: row.digest_algorithm,
      pepperVersion: Number(row.pepper_version),
      // A copy: the driver's lies in the whole answer's buffer and would keep that alive.
      bytes: new Uint8Array(row.digest.buffer),
    },
    standing: toStanding(row),
    createTime: row.create_time,
    createdBy: row.created_by,
    ...(lastUseTime && { lastUseTime }),
    sequence: Number(row.sequence),
  };
}

/**
 * Made without spreading parts, which costs several times the memory and the time: a process that was just started reads
 * each key that is used.
 */
export function fromVerifiableRow(row: VerifiableRow): VerifiableKey {
  const key: Writable<VerifiableKey> = {
    keyspace: row.keyspace,
    organizationId: row.organization_id,
    keyId: row._id,
    lineageId: row.lineage_id,
    name: row.name,
    type: row.type,
    digest: { pepperVersion: Number(row.pepper_version) },
    scopes: row.scopes,
    labels: Object.fromEntries(row.labels.map(({ name, value }) => [name, value])),
    standing: { kind: row.standing },
    revision: Number(row.revision),
  };
  if (row.public_id !== undefined) key.publicId = row.public_id;
  if (row.client_id !== undefined) key.clientId = row.client_id;
  if (row.expire_time) key.expireTime = row.expire_time;
  return key;
}

export function toDigestFields({ algorithm, pepperVersion, bytes }: Digest) {
  return { digest: new Binary(bytes), digest_algorithm: algorithm, pepper_version: new Int32(pepperVersion) };
}

export function toOrganizationRow(organization: Organization): OrganizationRow {
  return {
    _id: organizationPath(organization),
    ...toRefFields(organization),
    ...(organization.plan !== undefined && { plan: organization.plan }),
    suspended: organization.suspended,
    settings_revision: Long.fromNumber(organization.settingsRevision),
    key_count: Long.fromNumber(organization.keyCount),
    sequence: Long.fromNumber(organization.sequence),
    hash: organization.hash,
    ...(organization.lastEventTime && { last_event_time: organization.lastEventTime }),
    ...(organization.createTime && { create_time: organization.createTime }),
    ...(organization.updateTime && { update_time: organization.updateTime }),
    revision: Long.fromNumber(organization.revision),
  };
}

export function fromOrganizationRow(row: OrganizationRow): Organization {
  return {
    ...fromRefFields(row),
    ...(row.plan !== undefined && { plan: row.plan }),
    suspended: row.suspended,
    settingsRevision: Number(row.settings_revision ?? 0),
    keyCount: Number(row.key_count),
    sequence: Number(row.sequence),
    hash: row.hash,
    ...(row.last_event_time && { lastEventTime: row.last_event_time }),
    ...(row.create_time && { createTime: row.create_time }),
    ...(row.update_time && { updateTime: row.update_time }),
    revision: Number(row.revision),
  };
}

export function fromVerifiableOrganizationRow(row: VerifiableOrganizationRow): VerifiableOrganization {
  return {
    ...fromRefFields(row),
    ...(row.plan !== undefined && { plan: row.plan }),
    suspended: row.suspended,
    revision: Number(row.revision),
  };
}

export function toEventRow(event: CommittedEvent): EventRow {
  return {
    _id: event.eventId,
    ...toRefFields(event),
    organization: organizationPath(event),
    sequence: Long.fromNumber(event.sequence),
    type: event.type,
    key_id: event.keyId,
    ...(event.previousKeyId !== undefined && { previous_key_id: event.previousKeyId }),
    time: event.time,
    hash: event.hash,
    cloud_event: event.cloudEvent,
    published: event.published,
  };
}

export function fromEventRow(row: EventRow): AuditEvent {
  return {
    ...fromRefFields(row),
    eventId: row._id,
    type: row.type,
    keyId: row.key_id,
    ...(row.previous_key_id !== undefined && { previousKeyId: row.previous_key_id }),
    time: row.time,
    sequence: Number(row.sequence),
    hash: row.hash,
    cloudEvent: row.cloud_event,
  };
}

export function toRequestRowId(
  ref: OrganizationRef,
  { caller, method, requestId }: Pick<RequestRecord, 'caller' | 'method' | 'requestId'>,
): RequestRowId {
  return { ...toRefFields(ref), caller, method, request_id: requestId };
}

export function toRequestRow(request: RequestRecord, now: Date): RequestRow {
  return {
    _id: toRequestRowId(request, request),
    hash: request.hash,
    key_ids: [...request.keyIds],
    create_time: now,
  };
}

export function toKeyspaceRow({ name, kind, prefix, bodyLength, uniqueNames }: KeyspaceFacts): KeyspaceRow {
  return { _id: name, kind, prefix, body_length: new Int32(bodyLength), unique_names: uniqueNames };
}

export function fromKeyspaceRow(row: KeyspaceRow): KeyspaceFacts {
  return {
    name: row._id,
    kind: row.kind,
    prefix: row.prefix,
    bodyLength: Number(row.body_length),
    uniqueNames: row.unique_names,
  };
}

export function toPositionRowId({ sink, lane }: Pick<SinkPosition, 'sink' | 'lane'>): PositionRowId {
  return { sink, lane: new Int32(lane) };
}

function projectionOf(fields: readonly string[]): Readonly<Record<string, 1>> {
  return Object.fromEntries(fields.map((field) => [field, 1]));
}

export function fromRefFields({ keyspace, organization_id: organizationId }: RefFields): OrganizationRef {
  return { keyspace, organizationId };
}

function toRevocation(standing: Standing) {
  if (standing.kind !== 'revoked') return {};
  const { time, by, reason, detail } = standing;
  return { revoke_time: time, revoked_by: toActor(by), revocation_reason: reason, reason_detail: detail };
}

function toStanding(row: KeyRow): Standing {
  if (row.standing !== 'revoked') return { kind: row.standing };
  const { revoke_time: time, revoked_by: by, revocation_reason: reason, reason_detail: detail } = row;
  if (!time || !by || !reason || detail === undefined) throw new Error('a revoked key lacks its revocation');
  return { kind: 'revoked', time, by, reason, detail };
}

/** Without the permissions that an actor may carry while it acts. */
function toActor({ type, id }: Actor): Actor {
  return { type, id };
}
