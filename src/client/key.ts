import { type Actor as ActorMessage, ActorType } from '../gen/keyreeve/v1/actor.js';
import type { Enforcement as EnforcementMessage } from '../gen/keyreeve/v1/enforcement.js';
import {
  type Key as KeyMessage,
  KeyState,
  type KeySelector as SelectorMessage,
  RevocationReason,
} from '../gen/keyreeve/v1/key.js';
import { type Named, nameIn } from './names.js';
import { toDate, toDuration, toTimestamp } from './times.js';

type Messages = 'state' | 'createTime' | 'expireTime' | 'lastUseTime' | 'revokeTime' | 'createdBy' | 'revokedBy';

/** A key as it is stored. It never holds the secret. */
export interface Key extends Readonly<Omit<KeyMessage, Messages | 'revocationReason' | 'labels'>> {
  /** What it was good for at the time of the answer. */
  readonly state: Named<typeof KeyState>;
  readonly createTime: Date;
  /** From when on it is expired. Absent: never. */
  readonly expireTime?: Date;
  /** When it last verified as valid, give or take some seconds. Absent: never. */
  readonly lastUseTime?: Date;
  /** Absent: it is not revoked; so are `revokedBy` and `revocationReason`. */
  readonly revokeTime?: Date;
  readonly createdBy?: Actor;
  readonly revokedBy?: Actor;
  readonly revocationReason?: Named<typeof RevocationReason>;
  readonly labels: Readonly<Record<string, string>>;
}

/** On whose behalf a change is made. */
export interface Actor {
  /** `SYSTEM` appears in answers only. */
  readonly type: Named<typeof ActorType>;
  readonly id: string;
  /** What it may do, as the caller vouches for it. Answers tell none. */
  readonly permissions?: readonly string[] | undefined;
}

/** One way to name a key of the organization. A name selects the one that is neither revoked nor superseded. */
export type KeySelector = { readonly keyId: string } | { readonly name: string } | { readonly clientId: string };

/** When a new key ends: at a time, or so long after it is made. Absent: as its keyspace has it. */
export type Expiration =
  | { readonly expireTime?: Date | undefined; readonly ttlMs?: undefined }
  | { readonly ttlMs: number; readonly expireTime?: undefined };

/** How far a call that takes access away has taken effect. */
export interface Enforcement {
  /** From now on no replica lets in what was taken away. */
  readonly complete: boolean;
  /** When that will be so at the latest. Absent where it is. */
  readonly completeByTime?: Date;
  /** When the last answer that somebody was allowed to keep (`cacheTtlMs`) runs out. */
  readonly cachesClearTime?: Date;
}

export function toKey(message: KeyMessage): Key {
  const { state, createTime, expireTime, lastUseTime, revokeTime, createdBy, revokedBy, revocationReason, ...rest } =
    message;
  return {
    ...rest,
    state: nameIn(KeyState, state),
    createTime: toDate(createTime ?? { seconds: 0n, nanos: 0 }),
    ...(expireTime && { expireTime: toDate(expireTime) }),
    ...(lastUseTime && { lastUseTime: toDate(lastUseTime) }),
    ...(revokeTime && { revokeTime: toDate(revokeTime) }),
    ...(createdBy && { createdBy: toActor(createdBy) }),
    ...(revokedBy && { revokedBy: toActor(revokedBy) }),
    ...(revokeTime && { revocationReason: nameIn(RevocationReason, revocationReason) }),
    labels: Object.fromEntries(message.labels),
  };
}

export function toEnforcement({ complete, completeByTime, cachesClearTime }: EnforcementMessage): Enforcement {
  return {
    complete,
    ...(completeByTime && { completeByTime: toDate(completeByTime) }),
    ...(cachesClearTime && { cachesClearTime: toDate(cachesClearTime) }),
  };
}

export function toActorMessage({ type, id, permissions = [] }: Actor): ActorMessage {
  return { type: ActorType[type], id, permissions: [...permissions] };
}

export function toSelectorMessage(selector: KeySelector): SelectorMessage {
  if ('keyId' in selector) return { selector: { $case: 'keyId', value: selector.keyId } };
  if ('name' in selector) return { selector: { $case: 'name', value: selector.name } };
  return { selector: { $case: 'clientId', value: selector.clientId } };
}

export function toExpirationMessage({ expireTime, ttlMs }: Expiration) {
  if (expireTime) return { $case: 'expireTime', value: toTimestamp(expireTime) } as const;
  return ttlMs === undefined ? undefined : ({ $case: 'ttl', value: toDuration(ttlMs) } as const);
}

function toActor({ type, id }: ActorMessage): Actor {
  return { type: nameIn(ActorType, type), id };
}
