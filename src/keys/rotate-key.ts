import { type Change, type OrganizationState, unchanged } from './change.js';
import type { NewCredential } from './credential.js';
import type { EventDraft, KeyFacts, Mutation } from './event.js';
import { type Expiration, expireTimeFor, LATEST_TIME } from './expiration.js';
import { endsLater, isExpired, type Key, revise, stateOf } from './key.js';
import type { Keyspace } from './keyspace.js';
import { keyFactsOf, newKey } from './new-key.js';
import { type Refusal, isRefusal, refuseArgument } from './refusal.js';
import { repeated } from './repeat.js';
import { revoked } from './revoke-key.js';
import { type KeySelector, selectKey } from './select-key.js';

export interface RotateKey {
  readonly mutation: Mutation;
  readonly selector: KeySelector;
  /**
   * How long the old key still works, in milliseconds: 0 ends it at once. Absent: until it is revoked or expires, or for
   * as long as the keyspace lets an overlap last; refused where it lets none.
   */
  readonly overlapMs?: number;
  /** `default`: as the old key's, or the latest that the keyspace allows by now. */
  readonly expiration: Expiration;
}

export interface RotateKeyDraw {
  readonly now: Date;
  readonly keyId: string;
  /** The rotation's, and one for an older key that it ends. */
  readonly eventIds: readonly [string, string];
  readonly credential: NewCredential;
}

export interface RotatedKey {
  readonly key: Key;
  readonly previousKey: Key;
  /** The answer to a repeat: the credential was given away once, with the first answer. */
  readonly replayed: boolean;
  /** Whether a key ends earlier by it than before, or did by the request that it repeats, which is not known. */
  readonly takesAway: boolean;
}

/**
 * Issues a successor. The old key gives it its name and its place in the limit; of a lineage's superseded keys one at
 * most goes on working, so an older one ends.
 */
export function rotateKey(
  state: OrganizationState,
  ask: RotateKey,
  keyspace: Keyspace,
  draw: RotateKeyDraw,
): Change<RotatedKey> | Refusal {
  const earlier = repeated(state, ask.mutation);
  if (isRefusal(earlier)) return earlier;
  if (earlier?.[0] && earlier[1])
    return unchanged({ key: earlier[0], previousKey: earlier[1], replayed: true, takesAway: true });

  const { now } = draw;
  const old = selectKey(state.selected, ask.selector);
  if (isRefusal(old)) return old;
  if (old.standing.kind === 'revoked') return { refused: 'KEY_REVOKED' };
  if (old.supersededBy !== undefined) return { refused: 'KEY_SUPERSEDED' };
  if (isExpired(old, now)) return { refused: 'KEY_EXPIRED' };
  if (state.organization.suspended) return { refused: 'ORGANIZATION_SUSPENDED' };
  const overlapMs = overlapFor(ask.overlapMs, keyspace);
  if (isRefusal(overlapMs)) return overlapMs;
  const expireTime =
    ask.expiration.kind === 'default' ? takenOver(old, keyspace, now) : expireTimeFor(ask.expiration, keyspace, now);
  if (isRefusal(expireTime)) return expireTime;

  const { keyId, credential } = draw;
  const { name, type, scopes, labels, standing } = old;
  const key = newKey(
    // The standing too: a key that is switched off is not switched on by taking its place.
    {
      mutation: ask.mutation,
      keyId,
      credential,
      name,
      type,
      scopes,
      labels,
      standing,
      createTime: now,
      expireTime,
      successorTo: old,
    },
    state,
    keyspace,
  );
  const previousKey = supersede(old, key.keyId, overlapMs, ask, now);
  const older = state.selected.filter(
    (one) => one.lineageId === old.lineageId && one.supersededBy !== undefined && one.standing.kind !== 'revoked',
  );
  const ended = older.map((one) => ({ before: one, after: revoked(one, supersededBy(ask.mutation), now) }));
  return {
    answer: { key, previousKey, replayed: false, takesAway: overlapMs !== undefined || ended.length > 0 },
    // With overlap 0 access only changes hands, and that must work when a key is compromised.
    widens: overlapMs !== 0 || endsLater(old, expireTime ?? null),
    put: [{ before: old, after: previousKey }, ...ended, { after: key }],
    events: [
      {
        eventId: draw.eventIds[0],
        type: 'key.rotated',
        time: now,
        mutation: ask.mutation,
        key,
        after: keyFactsOf(key, now),
        previous: { key: previousKey, before: endOf(old, now), after: endOf(previousKey, now) },
        ...(overlapMs === 0 && { reason: 'SUPERSEDED' }),
      },
      ...ended.map((change) => toRevokedEvent(change, ask.mutation, draw)),
    ],
    ...(ask.mutation.request && {
      request: { mutation: ask.mutation, keyIds: [key.keyId, previousKey.keyId] },
    }),
  };
}

function overlapFor(overlapMs: number | undefined, { overlapMaxMs }: Keyspace): number | undefined | Refusal {
  if (overlapMs === undefined) {
    // To end a key at once has to be said.
    if (overlapMaxMs === 0)
      return refuseArgument('OVERLAP_INVALID', 'overlap', 'overlap must be stated as 0 in this keyspace');
    return overlapMaxMs;
  }
  if (overlapMaxMs !== undefined && overlapMs > overlapMaxMs) {
    return refuseArgument(
      'OVERLAP_INVALID',
      'overlap',
      `overlap must be at most ${overlapMaxMs / 1000} seconds in this keyspace`,
    );
  }
  return overlapMs;
}

/** The old key's end, or the latest that the keyspace gives to new keys by now. */
function takenOver({ expireTime }: Key, { expiration: { maxMs } }: Keyspace, now: Date): Date | undefined {
  if (maxMs === undefined) return expireTime;
  const latest = new Date(now.getTime() + maxMs);
  return expireTime && expireTime < latest ? expireTime : latest;
}

function supersede(old: Key, by: string, overlapMs: number | undefined, { mutation }: RotateKey, now: Date): Key {
  if (overlapMs === 0) return { ...revoked(old, supersededBy(mutation), now), supersededBy: by };
  const endMs = overlapMs === undefined ? Number.POSITIVE_INFINITY : now.getTime() + overlapMs;
  const sooner = endMs < (old.expireTime ?? LATEST_TIME).getTime();
  return revise(old, { supersededBy: by, ...(sooner && { expireTime: new Date(endMs) }) });
}

function supersededBy(mutation: Mutation) {
  return { mutation, reason: 'SUPERSEDED', reasonDetail: '' } as const;
}

/** What a rotation can change of the old key. */
function endOf(key: Key, now: Date): KeyFacts {
  return { state: stateOf(key, now), expireTime: key.expireTime ?? null };
}

function toRevokedEvent(
  { before, after }: { before: Key; after: Key },
  mutation: Mutation,
  { now, eventIds }: RotateKeyDraw,
): EventDraft {
  return {
    eventId: eventIds[1],
    type: 'key.revoked',
    time: now,
    mutation,
    key: after,
    before: { state: stateOf(before, now) },
    after: { state: 'REVOKED' },
    reason: 'SUPERSEDED',
  };
}
