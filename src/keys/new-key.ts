/** What holds for every new key, however it comes about: created, imported, or as the successor of another. */
import type { OrganizationState } from './change.js';
import type { NewCredential } from './credential.js';
import type { KeyFacts, Mutation } from './event.js';
import { publicIdOf } from './ids.js';
import { type Key, stateOf } from './key.js';
import { type Keyspace, planOf } from './keyspace.js';
import { type Refusal, refuseArgument } from './refusal.js';

export interface NewKey extends Pick<Key, 'keyId' | 'name' | 'type' | 'scopes' | 'labels' | 'standing' | 'createTime'> {
  readonly mutation: Mutation;
  readonly credential: Pick<NewCredential, 'clientId' | 'digest' | 'display'>;
  readonly expireTime: Date | undefined;
  /** The key whose place it takes: it goes on with that one's lineage and hold on the name. */
  readonly successorTo?: Key;
}

/** The record of a key whose event is the organization's next. */
export function newKey(
  { mutation, credential, expireTime, successorTo, ...fields }: NewKey,
  { organization }: OrganizationState,
  { publicIdPrefix, names }: Keyspace,
): Key {
  const { clientId, digest, display } = credential;
  return {
    ...fields,
    ...mutation.organization,
    ...(publicIdPrefix !== undefined && { publicId: publicIdOf(publicIdPrefix, fields.keyId) }),
    ...(clientId !== undefined && { clientId }),
    lineageId: successorTo?.lineageId ?? fields.keyId,
    ...(successorTo && { rotatedFrom: successorTo.keyId }),
    nameIsUnique: successorTo?.nameIsUnique ?? names.unique,
    display,
    digest,
    createdBy: mutation.actor,
    ...(expireTime && { expireTime }),
    sequence: organization.sequence + 1,
    revision: 1,
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
export function keyFactsOf(key: Key, now: Date): Required<KeyFacts> {
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
