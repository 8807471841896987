/** The domain's values for tests: each whole and valid, and any field can be given another value. */
import { createSecretKey } from 'node:crypto';

import { systemRandom } from '../../src/keys/base62.js';
import { newCredential } from '../../src/keys/credential.js';
import type { CreateKey, CreateKeyDraw } from '../../src/keys/create-key.js';
import type { Mutation } from '../../src/keys/event.js';
import { newEventId, newKeyId } from '../../src/keys/ids.js';
import type { ImportKey, ImportKeyDraw } from '../../src/keys/import-key.js';
import type { Key } from '../../src/keys/key.js';
import type { Keyspace } from '../../src/keys/keyspace.js';
import type { OrganizationRef } from '../../src/keys/organization.js';
import type { Pepper } from '../../src/keys/pepper.js';
import type { RevokeKey, RevokeKeyDraw } from '../../src/keys/revoke-key.js';
import type { RotateKey, RotateKeyDraw } from '../../src/keys/rotate-key.js';
import type { UpdateKey, UpdateKeyDraw } from '../../src/keys/update-key.js';
import type { UpdateOrganization, UpdateOrganizationDraw } from '../../src/keys/update-organization.js';

export const SOURCE = 'urn:keyreeve:test';
export const noon = new Date('2026-01-02T12:00:00.000Z');
export const acme: OrganizationRef = { keyspace: 'shop', organizationId: 'acme' };

export function aKeyspace(fields: Partial<Keyspace> = {}): Keyspace {
  return {
    name: 'shop',
    credential: { kind: 'bearer', prefix: 'shop_', bodyLength: 49, display: 'first_four' },
    names: { required: false, unique: false, default: '' },
    types: { allowed: [] },
    expiration: {},
    managePermissions: [],
    plans: new Map([['free', { name: 'free' }]]),
    defaultPlan: 'free',
    cacheTtlMs: 0,
    ...fields,
  };
}

/** A keyspace whose only plan allows so many keys. */
export function limitedTo(keyLimit: number, fields: Partial<Keyspace> = {}): Keyspace {
  return aKeyspace({ plans: new Map([['free', { name: 'free', keyLimit }]]), ...fields });
}

export function aMutation(fields: Partial<Mutation> = {}): Mutation {
  return { organization: acme, caller: 'console', actor: { type: 'USER', id: 'ada' }, ...fields };
}

export function askingToCreate(fields: Partial<CreateKey> = {}): CreateKey {
  return {
    mutation: aMutation(),
    name: 'ci',
    type: '',
    expiration: { kind: 'default' },
    scopes: [],
    labels: {},
    ...fields,
  };
}

export function drawToCreate(keyspace: Keyspace, fields: Partial<CreateKeyDraw> = {}): CreateKeyDraw {
  return {
    now: noon,
    keyId: newKeyId(),
    eventId: newEventId(),
    credential: newCredential(keyspace.credential, [], systemRandom),
    ...fields,
  };
}

export function askingToRevoke(fields: Pick<RevokeKey, 'selector'> & Partial<RevokeKey>): RevokeKey {
  return { mutation: aMutation(), reason: 'OTHER', reasonDetail: '', ...fields };
}

export function drawToRevoke(fields: Partial<RevokeKeyDraw> = {}): RevokeKeyDraw {
  return { now: noon, eventIds: [newEventId(), newEventId()], ...fields };
}

export function askingToRotate(fields: Pick<RotateKey, 'selector'> & Partial<RotateKey>): RotateKey {
  return { mutation: aMutation(), expiration: { kind: 'default' }, ...fields };
}

export function drawToRotate(keyspace: Keyspace, fields: Partial<RotateKeyDraw> = {}): RotateKeyDraw {
  return { ...drawToCreate(keyspace), eventIds: [newEventId(), newEventId()], ...fields };
}

export function askingToUpdate(fields: Pick<UpdateKey, 'selector'> & Partial<UpdateKey>): UpdateKey {
  return { mutation: aMutation(), etag: '', ...fields };
}

export function drawToUpdate(fields: Partial<UpdateKeyDraw> = {}): UpdateKeyDraw {
  return { now: noon, eventId: newEventId(), ...fields };
}

/** A key with a digest that no other has. */
export function askingToImport(fields: Partial<ImportKey> = {}): ImportKey {
  const { digest, display } = aKey();
  return {
    mutation: aMutation(),
    digest,
    display,
    name: 'ci',
    type: '',
    scopes: [],
    labels: {},
    disabled: false,
    ...fields,
  };
}

export function drawToImport(fields: Partial<ImportKeyDraw> = {}): ImportKeyDraw {
  return { now: noon, keyId: newKeyId(), eventId: newEventId(), ...fields };
}

export function askingToUpdateOrganization(fields: Partial<UpdateOrganization> = {}): UpdateOrganization {
  return { mutation: aMutation(), etag: '', ...fields };
}

export function drawToUpdateOrganization(fields: Partial<UpdateOrganizationDraw> = {}): UpdateOrganizationDraw {
  return { now: noon, eventId: newEventId(), ...fields };
}

/** Another pepper for each version. */
export function aPepper(version: number, fields: Partial<Pepper> = {}): Pepper {
  return { version, key: createSecretKey(Buffer.alloc(32, version)), isStandby: false, ...fields };
}

export function aKey(fields: Partial<Key> = {}): Key {
  const keyId = fields.keyId ?? newKeyId();
  const { digest, display } = newCredential(aKeyspace().credential, [], systemRandom);
  return {
    ...acme,
    keyId,
    lineageId: keyId,
    name: 'ci',
    nameIsUnique: false,
    type: '',
    display,
    digest,
    scopes: [],
    labels: {},
    standing: { kind: 'usable' },
    createTime: noon,
    createdBy: { type: 'USER', id: 'ada' },
    sequence: 1,
    revision: 1,
    ...fields,
  };
}
