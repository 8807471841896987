import { type Change, type OrganizationState, unchanged } from './change.js';
import type { NewCredential } from './credential.js';
import type { KeyFacts, Mutation } from './event.js';
import { type Expiration, expireTimeFor } from './expiration.js';
import { type Key, stateOf } from './key.js';
import { type Keyspace, planOf } from './keyspace.js';
import { publicIdOf } from './ids.js';
import { type Refusal, isRefusal, refuseArgument } from './refusal.js';
import { repeated } from './repeat.js';

/** A request to create, its fields in normal form (see `fields.ts`). */
export interface CreateKey {
  readonly mutation: Mutation;
  /** Empty: none given. */
  readonly name: string;
  /** Empty: none given. */
  readonly type: string;
  readonly expiration: Expiration;
  readonly scopes: readonly string[];
  readonly labels: Readonly<Record<string, string>>;
}

/** What chance and time gave, drawn once per request. */
export interface CreateKeyDraw {
  readonly now: Date;
  readonly keyId: string;
  readonly eventId: string;
  readonly credential: NewCredential;
}

export interface CreatedKey {
  readonly key: Key;
  /** The answer to a repeat: the credential was given away once, with the first answer. */
  readonly replayed: boolean;
}

export function createKey(
  state: OrganizationState,
  ask: CreateKey,
  keyspace: Keyspace,
  draw: CreateKeyDraw,
): Change<CreatedKey> | Refusal {
  // First of all: a repeat must not be judged by what has changed since, such as an expiry that has passed by now.
  const before = repeated(state, ask.mutation);
  if (isRefusal(before)) return before;
  if (before?.[0]) return unchanged({ key: before[0], replayed: true });

  const name = nameFor(ask.name, keyspace);
  if (isRefusal(name)) return name;
  const type = typeFor(ask.type, keyspace);
  if (isRefusal(type)) return type;
  const expireTime = expireTimeFor(ask.expiration, keyspace, draw.now);
  if (isRefusal(expireTime)) return expireTime;
  const noRoom = judgeRoom(state, keyspace);
  if (noRoom) return noRoom;

  const { mutation, scopes, labels } = ask;
  const { clientId, digest, display } = draw.credential;
  const key: Key = {
    ...mutation.organization,
    keyId: draw.keyId,
    ...(keyspace.publicIdPrefix !== undefined && { publicId: publicIdOf(keyspace.publicIdPrefix, draw.keyId) }),
    ...(clientId !== undefined && { clientId }),
    lineageId: draw.keyId,
    name,
    nameIsUnique: keyspace.names.unique,
    type,
    display,
    digest,
    scopes,
    labels,
    standing: { kind: 'usable' },
    createTime: draw.now,
    createdBy: mutation.actor,
    ...(expireTime && { expireTime }),
    sequence: state.organization.sequence + 1,
    revision: 1,
  };
  return {
    answer: { key, replayed: false },
    widens: true,
    put: [{ after: key }],
    events: [
      {
        eventId: draw.eventId,
        type: 'key.created',
        time: draw.now,
        mutation,
        key,
        after: factsOf(key, draw.now),
      },
    ],
    ...(mutation.request && { request: { mutation, keyIds: [key.keyId] } }),
  };
}

/** Whether the organization may have one key more, of the name that was loaded for it. Answers nothing where it may. */
export function judgeRoom({ organization, nameHolder }: OrganizationState, keyspace: Keyspace): Refusal | undefined {
  if (organization.suspended) return { refused: 'ORGANIZATION_SUSPENDED' };
  if (keyspace.names.unique && nameHolder) return { refused: 'NAME_TAKEN' };
  const { keyLimit, name } = planOf(keyspace, organization);
  if (keyLimit === undefined || organization.keyCount < keyLimit) return undefined;
  return { refused: 'KEY_LIMIT_REACHED', limit: keyLimit, plan: name };
}

/** All that the event of a new key tells of it. */
export function factsOf(key: Key, now: Date): Required<KeyFacts> {
  const { name, type, scopes, labels, expireTime } = key;
  return { name, type, state: stateOf(key, now), scopes, labels, expireTime: expireTime ?? null };
}

/** The name that a key will have by this request. A store must be asked who holds it. */
export function nameFor(name: string, { names }: Keyspace, field = 'name'): string | Refusal {
  if (name !== '') return name;
  if (names.required) return refuseArgument('NAME_REQUIRED', field, `${field} is required in this keyspace`);
  return names.default;
}

export function typeFor(type: string, { types }: Keyspace): string | Refusal {
  if (type === '' && types.allowed.length === 0) return '';
  const wanted = type === '' ? types.default : type;
  if (wanted !== undefined && types.allowed.includes(wanted)) return wanted;
  const message =
    types.allowed.length === 0
      ? 'keys of this keyspace have no type'
      : `type must be one of ${types.allowed.join(', ')}`;
  return refuseArgument('TYPE_INVALID', 'type', message);
}
