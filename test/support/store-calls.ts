/** What the service asks of a store, as tests ask it: each call draws what it needs and gives the store ample time. */
import type { Change, Load, Rule } from '../../src/keys/change.js';
import { Deadline, systemClock } from '../../src/keys/clock.js';
import { type CreatedKey, type CreateKey, type CreateKeyDraw, createKey } from '../../src/keys/create-key.js';
import { nameFor } from '../../src/keys/new-key.js';
import type { AuditEvent, EventDraft } from '../../src/keys/event.js';
import { newEventId } from '../../src/keys/ids.js';
import { type ImportedKey, type ImportKey, type ImportKeyDraw, importKey } from '../../src/keys/import-key.js';
import { type Key, KEY_STATES, type VerifiableKey } from '../../src/keys/key.js';
import type { Keyspace } from '../../src/keys/keyspace.js';
import type { Organization, OrganizationRef, VerifiableOrganization } from '../../src/keys/organization.js';
import { type Refusal, isRefusal } from '../../src/keys/refusal.js';
import { type RevokedKey, type RevokeKey, type RevokeKeyDraw, revokeKey } from '../../src/keys/revoke-key.js';
import { type RotatedKey, type RotateKey, type RotateKeyDraw, rotateKey } from '../../src/keys/rotate-key.js';
import { type UpdateKey, type UpdateKeyDraw, updateKey } from '../../src/keys/update-key.js';
import {
  type UpdateOrganization,
  type UpdateOrganizationDraw,
  updateOrganization,
} from '../../src/keys/update-organization.js';
import type { FoundKey, Store } from '../../src/store/port.js';
import {
  acme,
  aKeyspace,
  aMutation,
  askingToCreate,
  askingToImport,
  askingToRevoke,
  askingToRotate,
  askingToUpdate,
  askingToUpdateOrganization,
  drawToCreate,
  drawToImport,
  drawToRevoke,
  drawToRotate,
  drawToUpdate,
  drawToUpdateOrganization,
  noon,
} from './domain.js';

const AMPLE_MS = 30_000;

export const ample = (): Deadline => Deadline.after(AMPLE_MS, systemClock);

export interface Creating {
  keyspace?: Keyspace;
  ask?: Partial<CreateKey>;
  draw?: Partial<CreateKeyDraw>;
}

export async function tryCreate(store: Store, creating: Creating = {}): Promise<CreatedKey | Refusal> {
  const { load, rule } = toCreate(creating);
  return store.change(load, rule, ample());
}

/** A creation that has to succeed; answers the key. */
export async function create(store: Store, creating: Creating = {}): Promise<Key> {
  return granted(await tryCreate(store, creating)).key;
}

export function toCreate({ keyspace = aKeyspace(), ask: fields, draw: drawn }: Creating): {
  load: Load;
  rule: Rule<CreatedKey>;
} {
  const ask = askingToCreate(fields);
  const draw = drawToCreate(keyspace, drawn);
  const name = granted(nameFor(ask.name, keyspace));
  return {
    load: { ...toLoad(ask), ...(keyspace.names.unique && { name }) },
    rule: (state) => createKey(state, ask, keyspace, draw),
  };
}

export async function tryRevoke(
  store: Store,
  fields: Pick<RevokeKey, 'selector'> & Partial<RevokeKey>,
  drawn?: Partial<RevokeKeyDraw>,
): Promise<RevokedKey | Refusal> {
  const ask = askingToRevoke(fields);
  const draw = drawToRevoke(drawn);
  const load = { ...toLoad(ask), selector: ask.selector, withLineage: ask.selector.by === 'name' };
  return store.change(load, (state) => revokeKey(state, ask, draw), ample());
}

/** A revocation that has to succeed; answers the key. */
export async function revoke(store: Store, key: Key, drawn?: Partial<RevokeKeyDraw>): Promise<Key> {
  const selector = { by: 'key_id' as const, keyId: key.keyId };
  return granted(await tryRevoke(store, { selector, mutation: aMutation({ organization: key }) }, drawn)).key;
}

export interface Rotating {
  readonly keyspace?: Keyspace;
  readonly ask: Pick<RotateKey, 'selector'> & Partial<RotateKey>;
  readonly draw?: Partial<RotateKeyDraw>;
}

export async function tryRotate(store: Store, rotating: Rotating): Promise<RotatedKey | Refusal> {
  const { load, rule } = toRotate(rotating);
  return store.change(load, rule, ample());
}

export function toRotate({ keyspace = aKeyspace(), ask: fields, draw: drawn }: Rotating): {
  load: Load;
  rule: Rule<RotatedKey>;
} {
  const ask = askingToRotate(fields);
  const draw = drawToRotate(keyspace, drawn);
  return {
    load: { ...toLoad(ask), selector: ask.selector, withLineage: true },
    rule: (state) => rotateKey(state, ask, keyspace, draw),
  };
}

/** A rotation that has to succeed. */
export async function rotate(
  store: Store,
  { keyId, keyspace, organizationId }: Key,
  { ask, ...others }: Omit<Rotating, 'ask'> & { readonly ask?: Partial<RotateKey> } = {},
): Promise<RotatedKey> {
  const mutation = aMutation({ organization: { keyspace, organizationId } });
  return granted(await tryRotate(store, { ...others, ask: { selector: { by: 'key_id', keyId }, mutation, ...ask } }));
}

export interface Updating {
  readonly keyspace?: Keyspace;
  readonly ask: Pick<UpdateKey, 'selector'> & Partial<UpdateKey>;
  readonly draw?: Partial<UpdateKeyDraw>;
}

export async function tryUpdate(store: Store, updating: Updating): Promise<Key | Refusal> {
  const { load, rule } = toUpdate(updating);
  return store.change(load, rule, ample());
}

export function toUpdate({ keyspace = aKeyspace(), ask: fields, draw: drawn }: Updating): {
  load: Load;
  rule: Rule<Key>;
} {
  const ask = askingToUpdate(fields);
  const draw = drawToUpdate(drawn);
  const named = ask.name !== undefined && keyspace.names.unique;
  return {
    load: { ...toLoad(ask), selector: ask.selector, ...(named && { name: granted(nameFor(ask.name, keyspace)) }) },
    rule: (state) => updateKey(state, ask, keyspace, draw),
  };
}

/** An update that has to succeed; answers the key. */
export async function update(store: Store, key: Key, fields: Partial<UpdateKey>): Promise<Key> {
  const { keyId, keyspace, organizationId } = key;
  const mutation = aMutation({ organization: { keyspace, organizationId } });
  return granted(await tryUpdate(store, { ask: { selector: { by: 'key_id', keyId }, mutation, ...fields } }));
}

export interface Importing {
  readonly keyspace?: Keyspace;
  readonly ask?: Partial<ImportKey>;
  readonly draw?: Partial<ImportKeyDraw>;
  /** The forms in which the digest is looked for. Absent: the one in which it is to be stored. */
  readonly digests?: readonly Uint8Array[];
}

export async function tryImport(store: Store, importing: Importing = {}): Promise<ImportedKey | Refusal> {
  const { load, rule } = toImport(importing);
  return store.change(load, rule, ample());
}

export function toImport({ keyspace = aKeyspace(), ask: fields, draw: drawn, digests }: Importing): {
  load: Load;
  rule: Rule<ImportedKey>;
} {
  const ask = askingToImport(fields);
  const draw = drawToImport(drawn);
  const { clientId, digest, mutation, name } = ask;
  return {
    load: {
      organization: mutation.organization,
      digests: digests ?? [digest.bytes],
      ...(clientId !== undefined && { selector: { by: 'client_id', clientId } }),
      ...(keyspace.names.unique && { name: granted(nameFor(name, keyspace)) }),
    },
    rule: (state) => importKey(state, ask, keyspace, draw),
  };
}

export interface UpdatingOrganization {
  readonly keyspace?: Keyspace;
  readonly ask?: Partial<UpdateOrganization>;
  readonly draw?: Partial<UpdateOrganizationDraw>;
}

export async function tryUpdateOrganization(
  store: Store,
  { keyspace = aKeyspace(), ask: fields, draw: drawn }: UpdatingOrganization,
): Promise<Organization | Refusal> {
  const ask = askingToUpdateOrganization(fields);
  const draw = drawToUpdateOrganization(drawn);
  return store.change(toLoad(ask), (state) => updateOrganization(state, ask, keyspace, draw), ample());
}

/** Stores records that no rule makes, in this order, each with an event of its own; answers them as stored. */
export async function put(store: Store, keys: readonly Key[], organization: OrganizationRef = acme): Promise<Key[]> {
  const answer = await store.change({ organization }, (state) => toPut(keys, state.organization.sequence), ample());
  return granted(answer);
}

export function toPut(keys: readonly Key[], head: number): Change<Key[]> {
  const placed = keys.map((key, at) => ({ ...key, sequence: head + at + 1 }));
  return {
    answer: placed,
    widens: true,
    put: placed.map((after) => ({ after })),
    events: placed.map((key) => toDraft(key)),
  };
}

export function toDraft(key: Key, fields: Partial<EventDraft> = {}): EventDraft {
  const { keyspace, organizationId } = key;
  const mutation = aMutation({ organization: { keyspace, organizationId } });
  return { eventId: newEventId(), type: 'key.imported', time: noon, mutation, key, ...fields };
}

export function granted<A>(answer: A | Refusal): A {
  if (isRefusal(answer)) throw new Error(`refused: ${answer.refused}`);
  return answer;
}

export async function keysOf(store: Store, organization: OrganizationRef = acme): Promise<Key[]> {
  return store.listKeys(organization, { types: [], states: KEY_STATES, at: noon, limit: 1_000_000 }, ample());
}

export async function findByDigest(
  store: Store,
  { keyspace, digest }: Pick<Key, 'keyspace' | 'digest'>,
): Promise<FoundKey | undefined> {
  return store.findByDigest(keyspace, digest.bytes, ample());
}

/** A record as a verification reads it. */
export function verifiable(key: Key): VerifiableKey {
  const { keyId, publicId, clientId, lineageId, keyspace, organizationId, name, type, scopes, labels } = key;
  return {
    ...{ keyId, lineageId, keyspace, organizationId, name, type, scopes, labels, revision: key.revision },
    ...(publicId !== undefined && { publicId }),
    ...(clientId !== undefined && { clientId }),
    ...(key.expireTime && { expireTime: key.expireTime }),
    standing: { kind: key.standing.kind },
    digest: { pepperVersion: key.digest.pepperVersion },
  };
}

/** The same of an organization's. */
export function verifiableOrganization(organization: Organization): VerifiableOrganization {
  const { keyspace, organizationId, plan, suspended, revision } = organization;
  return { keyspace, organizationId, ...(plan !== undefined && { plan }), suspended, revision };
}

export async function eventsOf(store: Store, organization: OrganizationRef = acme): Promise<AuditEvent[]> {
  return (await store.listEvents(organization, { types: [], afterSequence: 0, limit: 1_000_000 }, ample())).events;
}

export async function organizationsOf(store: Store) {
  const organizations = [];
  for await (const organization of store.organizations()) organizations.push(organization);
  return organizations;
}

function toLoad({ mutation: { organization, caller, request } }: Pick<CreateKey, 'mutation'>): Load {
  if (!request) return { organization };
  return { organization, request: { caller, method: request.method, requestId: request.requestId } };
}
