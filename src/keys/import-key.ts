import { type Change, type OrganizationState, unchanged } from './change.js';
import type { Digest } from './digest.js';
import type { Mutation } from './event.js';
import { judgeEndless } from './expiration.js';
import type { Key } from './key.js';
import type { Keyspace } from './keyspace.js';
import { keyFactsOf, judgeRoom, nameFor, newKey, typeFor } from './new-key.js';
import { type Refusal, isRefusal, refuseArgument } from './refusal.js';

/** One key to take over, its fields in normal form. */
export interface ImportKey {
  readonly mutation: Mutation;
  /** In the form in which it is to be stored. */
  readonly digest: Digest;
  /** In pair form. */
  readonly clientId?: string;
  readonly display: string;
  /** Empty: none given. */
  readonly name: string;
  /** Empty: none given. */
  readonly type: string;
  readonly scopes: readonly string[];
  readonly labels: Readonly<Record<string, string>>;
  /** Absent: now. */
  readonly createTime?: Date;
  /** May have passed. Absent: the key does not expire. */
  readonly expireTime?: Date;
  readonly disabled: boolean;
}

export interface ImportKeyDraw {
  readonly now: Date;
  readonly keyId: string;
  readonly eventId: string;
}

export interface ImportedKey {
  readonly key: Key;
  /** Whether the organization had a key with this digest already: that one is the answer. */
  readonly alreadyImported: boolean;
}

/**
 * Takes over one key that was issued elsewhere. Importing it again answers the key, so that an import which broke off is
 * simply repeated. The state's `selected` are the keys that have the client id.
 */
export function importKey(
  state: OrganizationState,
  ask: ImportKey,
  keyspace: Keyspace,
  draw: ImportKeyDraw,
): Change<ImportedKey> | Refusal {
  const { mutation, scopes, labels, clientId } = ask;
  const holder = state.digestHolder;
  if (holder) {
    if (holder.organizationId !== mutation.organization.organizationId)
      return { refused: 'DIGEST_TAKEN', by: 'digest' };
    // A pair that is told to be there must verify.
    if (holder.clientId !== clientId) return { refused: 'DIGEST_TAKEN', by: 'client_id' };
    return unchanged({ key: holder, alreadyImported: true });
  }
  // A client id selects one key.
  if (clientId !== undefined && state.selected.length > 0) return { refused: 'DIGEST_TAKEN', by: 'client_id' };
  const name = nameFor(ask.name, keyspace);
  if (isRefusal(name)) return name;
  const type = typeFor(ask.type, keyspace);
  if (isRefusal(type)) return type;
  const badTime = judgeTimes(ask, keyspace, draw.now);
  if (badTime) return badTime;
  const noRoom = judgeRoom(state, keyspace);
  if (noRoom) return noRoom;

  const { keyId, eventId, now } = draw;
  const key = newKey(
    {
      mutation,
      keyId,
      credential: { ...(clientId !== undefined && { clientId }), digest: ask.digest, display: ask.display },
      name,
      type,
      scopes,
      labels,
      standing: { kind: ask.disabled ? 'disabled' : 'usable' },
      createTime: ask.createTime ?? now,
      expireTime: ask.expireTime,
    },
    state,
    keyspace,
  );
  return {
    answer: { key, alreadyImported: false },
    widens: true,
    put: [{ after: key }],
    events: [{ eventId, type: 'key.imported', time: now, mutation, key, after: keyFactsOf(key, now) }],
  };
}

function judgeTimes({ createTime, expireTime }: ImportKey, keyspace: Keyspace, now: Date): Refusal | undefined {
  const { maxMs } = keyspace.expiration;
  const refuse = (field: string, rule: string) => refuseArgument('EXPIRATION_INVALID', field, `${field} must ${rule}`);
  if (createTime && createTime > now) return refuse('create_time', 'not lie in the future');
  if (!expireTime) return judgeEndless(keyspace);
  if (maxMs !== undefined && expireTime.getTime() - now.getTime() > maxMs) {
    return refuse('expire_time', `lie at most ${maxMs / 1000} seconds ahead in this keyspace`);
  }
  return undefined;
}
