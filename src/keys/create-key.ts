import { type Change, type OrganizationState, unchanged } from './change.js';
import type { NewCredential } from './credential.js';
import type { Mutation } from './event.js';
import { type Expiration, expireTimeFor } from './expiration.js';
import type { Key } from './key.js';
import type { Keyspace } from './keyspace.js';
import { keyFactsOf, judgeRoom, nameFor, newKey, typeFor } from './new-key.js';
import { type Refusal, isRefusal } from './refusal.js';
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
  const { keyId, now, credential } = draw;
  const standing = { kind: 'usable' } as const;
  const key = newKey(
    { mutation, keyId, credential, name, type, scopes, labels, standing, createTime: now, expireTime },
    state,
    keyspace,
  );
  return {
    answer: { key, replayed: false },
    widens: true,
    put: [{ after: key }],
    events: [
      {
        eventId: draw.eventId,
        type: 'key.created',
        time: now,
        mutation,
        key,
        after: keyFactsOf(key, now),
      },
    ],
    ...(mutation.request && { request: { mutation, keyIds: [key.keyId] } }),
  };
}
