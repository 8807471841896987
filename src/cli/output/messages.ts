/**
 * The messages as JSON for programs: names as in the proto, enum values without their prefix, times in RFC 3339. Every
 * field is there; what is absent is null.
 */
import type { Duration } from '../../gen/google/protobuf/duration.js';
import type { Timestamp } from '../../gen/google/protobuf/timestamp.js';
import { type Actor, ActorType } from '../../gen/keyreeve/v1/actor.js';
import type { Credential } from '../../gen/keyreeve/v1/credential.js';
import type { Enforcement } from '../../gen/keyreeve/v1/enforcement.js';
import type { Failure } from '../../gen/keyreeve/v1/failure.js';
import { type Key, KeyState, RevocationReason } from '../../gen/keyreeve/v1/key.js';
import type { Organization } from '../../gen/keyreeve/v1/organization.js';
import { Decision, type RateLimit, type VerifiedKey } from '../../gen/keyreeve/v1/verification.js';
import { toIso, toMs } from './times.js';

export function toKeyJson(key: Key): object {
  return {
    key_id: key.keyId,
    public_id: key.publicId,
    client_id: key.clientId,
    lineage_id: key.lineageId,
    keyspace: key.keyspace,
    organization_id: key.organizationId,
    name: key.name,
    type: key.type,
    display: key.display,
    state: stateName(key.state),
    disabled: key.disabled,
    create_time: toTimeJson(key.createTime),
    expire_time: toTimeJson(key.expireTime),
    last_use_time: toTimeJson(key.lastUseTime),
    revoke_time: toTimeJson(key.revokeTime),
    created_by: toActorJson(key.createdBy),
    revoked_by: toActorJson(key.revokedBy),
    revocation_reason: key.revocationReason === RevocationReason.UNSPECIFIED ? null : reasonName(key.revocationReason),
    reason_detail: key.reasonDetail,
    scopes: key.scopes,
    labels: Object.fromEntries(key.labels),
    etag: key.etag,
    rotated_from: key.rotatedFrom,
    superseded_by: key.supersededBy,
  };
}

export function toVerifiedKeyJson(key: VerifiedKey): object {
  return {
    key_id: key.keyId,
    public_id: key.publicId,
    lineage_id: key.lineageId,
    keyspace: key.keyspace,
    organization_id: key.organizationId,
    name: key.name,
    type: key.type,
    scopes: key.scopes,
    labels: Object.fromEntries(key.labels),
    expire_time: toTimeJson(key.expireTime),
  };
}

export function toOrganizationJson(organization: Organization): object {
  return {
    keyspace: organization.keyspace,
    organization_id: organization.organizationId,
    plan: organization.plan,
    suspended: organization.suspended,
    key_count: organization.keyCount,
    create_time: toTimeJson(organization.createTime),
    update_time: toTimeJson(organization.updateTime),
    etag: organization.etag,
  };
}

export function toFailureJson({ code, reason, message, field }: Failure): object {
  return { code, reason, message, field };
}

/** It discloses the secret: for the one answer that is meant to. */
export function toCredentialJson({ kind }: Credential): object | null {
  switch (kind?.$case) {
    case 'bearerToken':
      return { bearer_token: kind.value };
    case 'client':
      return { client: { client_id: kind.value.clientId, secret: kind.value.secret } };
    case undefined:
      return null;
  }
}

export function toEnforcementJson(enforcement: Enforcement): object {
  return {
    complete: enforcement.complete,
    complete_by_time: toTimeJson(enforcement.completeByTime),
    caches_clear_time: toTimeJson(enforcement.cachesClearTime),
  };
}

export function toRateLimitJson(limit: RateLimit): object {
  return {
    limit: limit.limit,
    remaining: limit.remaining,
    window: toDurationJson(limit.window),
    reset_time: toTimeJson(limit.resetTime),
    retry_after: toDurationJson(limit.retryAfter),
  };
}

/** As protobuf's JSON has it: seconds, `"5s"` or `"0.250s"`. */
export function toDurationJson(duration: Duration | undefined): string | null {
  if (!duration) return null;
  const ms = toMs(duration);
  return `${ms % 1000 === 0 ? ms / 1000 : (ms / 1000).toFixed(3)}s`;
}

// A service of a later version may know more values than this command.
export const stateName = (state: KeyState): string => nameOf(KeyState, state);
export const reasonName = (reason: RevocationReason): string => nameOf(RevocationReason, reason);
export const decisionName = (decision: Decision): string => nameOf(Decision, decision);
export const actorTypeName = (type: ActorType): string => nameOf(ActorType, type);

function nameOf(names: Readonly<Record<number, string>>, value: number): string {
  return names[value] ?? `UNKNOWN_${value}`;
}

function toActorJson(actor: Actor | undefined): object | null {
  return actor ? { type: actorTypeName(actor.type), id: actor.id } : null;
}

function toTimeJson(timestamp: Timestamp | undefined): string | null {
  return timestamp ? toIso(timestamp) : null;
}
