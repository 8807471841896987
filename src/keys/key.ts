import type { Actor } from './actor.js';
import type { Digest } from './digest.js';
import type { OrganizationRef } from './organization.js';

export const REVOCATION_REASONS = ['UNUSED', 'COMPROMISED', 'SUPERSEDED', 'OWNER_DEPARTED', 'OTHER'] as const;
export type RevocationReason = (typeof REVOCATION_REASONS)[number];

export const KEY_STATES = ['ACTIVE', 'DISABLED', 'EXPIRED', 'REVOKED'] as const;
export type KeyState = (typeof KEY_STATES)[number];

/** "Expired" is no standing: the clock makes it so, and nobody has to write it down. */
export type Standing =
  | { readonly kind: 'usable' }
  | { readonly kind: 'disabled' }
  | {
      readonly kind: 'revoked';
      readonly time: Date;
      readonly by: Actor;
      readonly reason: RevocationReason;
      /** Free text; empty when none was given. */
      readonly detail: string;
    };

/** A key's record. Never holds the secret. */
export interface Key extends OrganizationRef {
  /** TypeID `key_…`. */
  readonly keyId: string;
  /** `<public prefix>.<suffix of keyId>`, where the keyspace has a public prefix. */
  readonly publicId?: string;
  /** TypeID `client_…`, in pair form. */
  readonly clientId?: string;
  /** The `keyId` of the first key of the lineage; its own, for a key that no rotation made. */
  readonly lineageId: string;
  readonly rotatedFrom?: string;
  readonly supersededBy?: string;
  readonly name: string;
  /** Whether no other unrevoked, unsuperseded key of the organization may have the name. */
  readonly nameIsUnique: boolean;
  /** One of the keyspace's types; empty where it has none. */
  readonly type: string;
  /** What may be shown of the credential: `hd_live_a1b2...` or `hm_****abcd`. */
  readonly display: string;
  readonly digest: Digest;
  readonly scopes: readonly string[];
  readonly labels: Readonly<Record<string, string>>;
  readonly standing: Standing;
  readonly createTime: Date;
  readonly createdBy: Actor;
  /** The key works while `now < expireTime`. Absent: until it is revoked. */
  readonly expireTime?: Date;
  /** Absent: never used, as far as is known. Kept beside the record: read with it, and never written by a change. */
  readonly lastUseTime?: Date;
  /** Sequence of the event that made the key: its place in lists. */
  readonly sequence: number;
  /** Counts the writes of this record, from 1. */
  readonly revision: number;
}

/** What a verification needs of a key. */
export type VerifiableKey = Pick<
  Key,
  | 'keyId'
  | 'publicId'
  | 'clientId'
  | 'lineageId'
  | 'keyspace'
  | 'organizationId'
  | 'name'
  | 'type'
  | 'scopes'
  | 'labels'
  | 'expireTime'
  | 'revision'
> & { readonly standing: Pick<Standing, 'kind'>; readonly digest: Pick<Digest, 'pepperVersion'> };

export function stateOf(key: Pick<VerifiableKey, 'standing' | 'expireTime'>, now: Date): KeyState {
  switch (key.standing.kind) {
    case 'revoked':
      return 'REVOKED';
    case 'disabled':
      return 'DISABLED';
    case 'usable':
      return isExpired(key, now) ? 'EXPIRED' : 'ACTIVE';
  }
}

/** Neither revoked nor superseded: such a key holds its name and a place in the limit, expired or not. */
export function isCurrent(key: Key): boolean {
  return key.standing.kind !== 'revoked' && key.supersededBy === undefined;
}

/** Whether the clock alone would deny the key, whatever else does. */
export function isExpired({ expireTime }: Pick<Key, 'expireTime'>, now: Date): boolean {
  return expireTime !== undefined && expireTime <= now;
}

/** Whether that is a later end than the key has. Null: never. */
export function endsLater(key: Pick<Key, 'expireTime'>, expireTime: Date | null): boolean {
  return key.expireTime !== undefined && (expireTime === null || expireTime > key.expireTime);
}

export function sameLabels(a: Key['labels'], b: Key['labels']): boolean {
  const names = Object.keys(a);
  return names.length === Object.keys(b).length && names.every((name) => Object.hasOwn(b, name) && a[name] === b[name]);
}

/** The record with some fields changed, as its next revision. */
export function revise(key: Key, fields: Partial<Omit<Key, 'revision'>>): Key {
  return { ...key, ...fields, revision: key.revision + 1 };
}

/** Opaque to callers: differs whenever the record does. */
export function etagOf(key: Key): string {
  return `"${key.revision.toString(36)}"`;
}
