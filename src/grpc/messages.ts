/** The domain's records as messages, each in one place. */
import { ActorType, type Actor as ActorMessage } from '../gen/keyreeve/v1/actor.js';
import type { Credential } from '../gen/keyreeve/v1/credential.js';
import type { Enforcement as EnforcementMessage } from '../gen/keyreeve/v1/enforcement.js';
import { type Key as KeyMessage, KeyState, RevocationReason } from '../gen/keyreeve/v1/key.js';
import type { Organization as OrganizationMessage } from '../gen/keyreeve/v1/organization.js';
import type { VerifiedKey } from '../gen/keyreeve/v1/verification.js';
import type { Duration } from '../gen/google/protobuf/duration.js';
import type { Timestamp } from '../gen/google/protobuf/timestamp.js';
import type { Actor } from '../keys/actor.js';
import type { NewCredential } from '../keys/credential.js';
import { etagOf, type Key, stateOf } from '../keys/key.js';
import { type Keyspace, planOf } from '../keys/keyspace.js';
import { etagOfOrganization, type Organization } from '../keys/organization.js';
import type { Enforcement } from '../store/port.js';
import type { KnownKey } from '../verify/record-cache.js';

/** @param now what the key's state is judged at */
export function toKeyMessage(key: Key, now: Date): KeyMessage {
  const revoked = key.standing.kind === 'revoked' ? key.standing : undefined;
  return {
    ...toCommonFields(key),
    clientId: key.clientId ?? '',
    display: key.display,
    state: KeyState[stateOf(key, now)],
    disabled: key.standing.kind === 'disabled',
    createTime: toTimestamp(key.createTime),
    lastUseTime: key.lastUseTime && toTimestamp(key.lastUseTime),
    revokeTime: revoked && toTimestamp(revoked.time),
    createdBy: toActorMessage(key.createdBy),
    revokedBy: revoked && toActorMessage(revoked.by),
    revocationReason: revoked ? RevocationReason[revoked.reason] : RevocationReason.UNSPECIFIED,
    reasonDetail: revoked?.detail ?? '',
    etag: etagOf(key),
    rotatedFrom: key.rotatedFrom ?? '',
    supersededBy: key.supersededBy ?? '',
  };
}

export function toVerifiedKeyMessage(key: KnownKey): VerifiedKey {
  return toCommonFields(key);
}

/** The one place where a secret is put into a message: the answer to whoever asked for it to be made. */
export function toCredentialMessage({ secret, clientId }: NewCredential): Credential {
  if (clientId === undefined) return { kind: { $case: 'bearerToken', value: secret.reveal() } };
  return { kind: { $case: 'client', value: { clientId, secret: secret.reveal() } } };
}

/** @param keyspace the organization's */
export function toOrganizationMessage(organization: Organization, keyspace: Keyspace): OrganizationMessage {
  const { createTime, updateTime } = organization;
  return {
    keyspace: organization.keyspace,
    organizationId: organization.organizationId,
    plan: planOf(keyspace, organization).name,
    suspended: organization.suspended,
    keyCount: organization.keyCount,
    createTime: createTime && toTimestamp(createTime),
    updateTime: updateTime && toTimestamp(updateTime),
    etag: etagOfOrganization(organization),
  };
}

/**
 * @param now read after the enforcement: until then callers may have been given answers to keep
 * @param cacheTtlMs for how long they may keep them at the longest
 */
export function toEnforcementMessage(enforcement: Enforcement, now: Date, cacheTtlMs: number): EnforcementMessage {
  const lastAnswer = enforcement.complete ? now : enforcement.byTime;
  return {
    complete: enforcement.complete,
    completeByTime: enforcement.complete ? undefined : toTimestamp(enforcement.byTime),
    cachesClearTime: toTimestamp(new Date(lastAnswer.getTime() + cacheTtlMs)),
  };
}

export function toTimestamp(time: Date): Timestamp {
  const ms = time.getTime();
  const seconds = Math.floor(ms / 1000);
  return { seconds: BigInt(seconds), nanos: (ms - seconds * 1000) * 1_000_000 };
}

/** @param ms whole, 0 or more */
export function toDuration(ms: number): Duration {
  return { seconds: BigInt(Math.floor(ms / 1000)), nanos: (ms % 1000) * 1_000_000 };
}

function toCommonFields(key: KnownKey) {
  return {
    keyId: key.keyId,
    publicId: key.publicId ?? '',
    lineageId: key.lineageId,
    keyspace: key.keyspace,
    organizationId: key.organizationId,
    name: key.name,
    type: key.type,
    scopes: [...key.scopes],
    labels: new Map(Object.entries(key.labels)),
    expireTime: key.expireTime && toTimestamp(key.expireTime),
  };
}

function toActorMessage({ type, id }: Actor): ActorMessage {
  return { type: ActorType[type], id, permissions: [] };
}
