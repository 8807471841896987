/** Records as rows and back: the only file that knows both shapes. */
import type { Actor } from '../../keys/actor.js';
import type { Digest } from '../../keys/digest.js';
import type { AuditEvent, EventType } from '../../keys/event.js';
import type { Key, RevocationReason, Standing, VerifiableKey } from '../../keys/key.js';
import { newOrganization, type Organization } from '../../keys/organization.js';
import type { Writable } from '../../writable.js';
import type { FoundKey } from '../port.js';

export interface KeyRow {
  key_id: string;
  keyspace: string;
  organization_id: string;
  sequence: number;
  revision: number;
  public_id: string | null;
  client_id: string | null;
  lineage_id: string;
  rotated_from: string | null;
  superseded_by: string | null;
  name: string;
  name_is_unique: number;
  type: string;
  display: string;
  digest: Uint8Array;
  digest_algorithm: Digest['algorithm'];
  pepper_version: number;
  scopes: string;
  labels: string;
  standing: Standing['kind'];
  revoke_time: number | null;
  revocation: string | null;
  create_time: number;
  created_by: string;
  expire_time: number | null;
}

/** A key as it is read: with its last use, where that is asked for. */
export interface ReadKeyRow extends KeyRow {
  last_use_time?: number | null;
}

export interface OrganizationRow {
  keyspace: string;
  organization_id: string;
  plan: string | null;
  suspended: number;
  settings_revision: number;
  key_count: number;
  sequence: number;
  hash: string;
  last_event_time: number | null;
  create_time: number | null;
  update_time: number | null;
  revision: number;
}

/** Of a key's row and of its organization's what a verification needs. */
export interface VerifiableRows {
  keys: Pick<KeyRow, (typeof VERIFIABLE_COLUMNS.keys)[number]>;
  /** Without a revision: the organization has no row. */
  organizations: Pick<OrganizationRow, (typeof VERIFIABLE_COLUMNS.organizations)[number]> | { revision: null };
}

export const VERIFIABLE_COLUMNS = {
  keys: [
    'keyspace',
    'organization_id',
    'key_id',
    'revision',
    'public_id',
    'client_id',
    'lineage_id',
    'name',
    'type',
    'pepper_version',
    'scopes',
    'labels',
    'standing',
    'expire_time',
  ],
  organizations: ['plan', 'suspended', 'revision'],
} as const satisfies { keys: (keyof KeyRow)[]; organizations: (keyof OrganizationRow)[] };

export interface EventRow {
  keyspace: string;
  organization_id: string;
  sequence: number;
  event_id: string;
  type: EventType;
  key_id: string;
  previous_key_id: string | null;
  time: number;
  hash: string;
  cloud_event: string;
}

/** What is stored of a revocation beside its time. */
interface RevocationJson {
  by: Actor;
  reason: RevocationReason;
  detail: string;
}

export function toKeyRow(key: Key): KeyRow {
  const { standing } = key;
  return {
    key_id: key.keyId,
    keyspace: key.keyspace,
    organization_id: key.organizationId,
    sequence: key.sequence,
    revision: key.revision,
    public_id: key.publicId ?? null,
    client_id: key.clientId ?? null,
    lineage_id: key.lineageId,
    rotated_from: key.rotatedFrom ?? null,
    superseded_by: key.supersededBy ?? null,
    name: key.name,
    name_is_unique: Number(key.nameIsUnique),
    type: key.type,
    display: key.display,
    digest: key.digest.bytes,
    digest_algorithm: key.digest.algorithm,
    pepper_version: key.digest.pepperVersion,
    scopes: JSON.stringify(key.scopes),
    labels: JSON.stringify(key.labels),
    standing: standing.kind,
    ...toRevocationCells(standing),
    create_time: key.createTime.getTime(),
    created_by: JSON.stringify(toActor(key.createdBy)),
    expire_time: key.expireTime?.getTime() ?? null,
  };
}

export function fromKeyRow(row: ReadKeyRow): Key {
  return {
    ...fromVerifiableKey(row),
    ...(row.rotated_from !== null && { rotatedFrom: row.rotated_from }),
    ...(row.superseded_by !== null && { supersededBy: row.superseded_by }),
    nameIsUnique: row.name_is_unique === 1,
    display: row.display,
    digest: {
      algorithm: row.digest_algorithm,
      pepperVersion: row.pepper_version,
      // The engine gives a Buffer for a row alone and an ArrayBuffer for one of several.
      bytes: new Uint8Array(row.digest),
    },
    standing: toStanding(row),
    createTime: new Date(row.create_time),
    createdBy: JSON.parse(row.created_by) as Actor,
    ...(typeof row.last_use_time === 'number' && { lastUseTime: new Date(row.last_use_time) }),
    sequence: row.sequence,
  };
}

export function fromVerifiableRows({ keys, organizations }: VerifiableRows): FoundKey {
  const { keyspace, organization_id: organizationId } = keys;
  const ref = { keyspace, organizationId };
  return {
    key: fromVerifiableKey(keys),
    organization:
      organizations.revision === null
        ? newOrganization(ref)
        : {
            ...ref,
            suspended: organizations.suspended === 1,
            revision: organizations.revision,
            ...(organizations.plan !== null && { plan: organizations.plan }),
          },
  };
}

/** Made without spreading parts, which costs several times the memory and the time: a first sight waits for it. */
function fromVerifiableKey(row: VerifiableRows['keys']): VerifiableKey {
  const key: Writable<VerifiableKey> = {
    keyspace: row.keyspace,
    organizationId: row.organization_id,
    keyId: row.key_id,
    lineageId: row.lineage_id,
    name: row.name,
    type: row.type,
    digest: { pepperVersion: row.pepper_version },
    scopes: JSON.parse(row.scopes) as string[],
    labels: JSON.parse(row.labels) as Record<string, string>,
    standing: { kind: row.standing },
    revision: row.revision,
  };
  if (row.public_id !== null) key.publicId = row.public_id;
  if (row.client_id !== null) key.clientId = row.client_id;
  if (row.expire_time !== null) key.expireTime = new Date(row.expire_time);
  return key;
}

export function toOrganizationRow(organization: Organization): OrganizationRow {
  return {
    keyspace: organization.keyspace,
    organization_id: organization.organizationId,
    plan: organization.plan ?? null,
    suspended: Number(organization.suspended),
    settings_revision: organization.settingsRevision,
    key_count: organization.keyCount,
    sequence: organization.sequence,
    hash: organization.hash,
    last_event_time: organization.lastEventTime?.getTime() ?? null,
    create_time: organization.createTime?.getTime() ?? null,
    update_time: organization.updateTime?.getTime() ?? null,
    revision: organization.revision,
  };
}

export function fromOrganizationRow(row: OrganizationRow): Organization {
  return {
    keyspace: row.keyspace,
    organizationId: row.organization_id,
    ...(row.plan !== null && { plan: row.plan }),
    suspended: row.suspended === 1,
    settingsRevision: row.settings_revision,
    keyCount: row.key_count,
    sequence: row.sequence,
    hash: row.hash,
    ...(row.last_event_time !== null && { lastEventTime: new Date(row.last_event_time) }),
    ...(row.create_time !== null && { createTime: new Date(row.create_time) }),
    ...(row.update_time !== null && { updateTime: new Date(row.update_time) }),
    revision: row.revision,
  };
}

export function toEventRow(event: AuditEvent): EventRow {
  return {
    keyspace: event.keyspace,
    organization_id: event.organizationId,
    sequence: event.sequence,
    event_id: event.eventId,
    type: event.type,
    key_id: event.keyId,
    previous_key_id: event.previousKeyId ?? null,
    time: event.time.getTime(),
    hash: event.hash,
    cloud_event: event.cloudEvent,
  };
}

export function fromEventRow(row: EventRow): AuditEvent {
  return {
    keyspace: row.keyspace,
    organizationId: row.organization_id,
    eventId: row.event_id,
    type: row.type,
    keyId: row.key_id,
    ...(row.previous_key_id !== null && { previousKeyId: row.previous_key_id }),
    time: new Date(row.time),
    sequence: row.sequence,
    hash: row.hash,
    cloudEvent: row.cloud_event,
  };
}

function toRevocationCells(standing: Standing): Pick<KeyRow, 'revoke_time' | 'revocation'> {
  if (standing.kind !== 'revoked') return { revoke_time: null, revocation: null };
  const { time, by, reason, detail } = standing;
  const revocation: RevocationJson = { by: toActor(by), reason, detail };
  return { revoke_time: time.getTime(), revocation: JSON.stringify(revocation) };
}

function toStanding({ standing, revoke_time, revocation }: KeyRow): Standing {
  if (standing !== 'revoked') return { kind: standing };
  if (revoke_time === null || revocation === null) throw new Error('a revoked key lacks its revocation');
  return { kind: 'revoked', time: new Date(revoke_time), ...(JSON.parse(revocation) as RevocationJson) };
}

/** Without the permissions that an actor may carry while it acts. */
function toActor({ type, id }: Actor): Actor {
  return { type, id };
}
