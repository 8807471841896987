import { type Change, type OrganizationState, unchanged } from './change.js';
import type { EventDraft, Mutation } from './event.js';
import { type Key, type RevocationReason, revise, stateOf } from './key.js';
import { type Refusal, isRefusal } from './refusal.js';
import { repeated } from './repeat.js';
import { type KeySelector, selectKey } from './select-key.js';

export interface RevokeKey {
  readonly mutation: Mutation;
  readonly selector: KeySelector;
  readonly reason: RevocationReason;
  /** Empty: none given. */
  readonly reasonDetail: string;
}

export interface RevokeKeyDraw {
  readonly now: Date;
  /** One for each key that can end: the one selected and, by name, the older one of its lineage. */
  readonly eventIds: readonly [string, string];
}

export interface RevokedKey {
  readonly key: Key;
  /** The older key of the lineage, where a revocation by name ended it too. */
  readonly previousKey?: Key;
}

/** Revoking is permanent, and revoking again changes nothing and tells of the first time. */
export function revokeKey(state: OrganizationState, ask: RevokeKey, draw: RevokeKeyDraw): Change<RevokedKey> | Refusal {
  const before = repeated(state, ask.mutation);
  if (isRefusal(before)) return before;
  if (before?.[0]) return unchanged(toRevokedKey(before));

  const key = selectKey(state.selected, ask.selector);
  if (isRefusal(key)) return key;
  const ending = [key, ...lineageOf(key, state, ask.selector)];
  const ended = ending.map((one) => (one.standing.kind === 'revoked' ? one : revoked(one, ask, draw.now)));
  const put = ending
    .map((one, at) => ({ before: one, after: ended[at] ?? one }))
    .filter(({ before: one, after }) => one !== after);
  return {
    answer: toRevokedKey(ended),
    widens: false,
    put,
    events: put.map((change, at) => toEvent(change, ask, draw, at)),
    ...(ask.mutation.request && {
      request: { mutation: ask.mutation, keyIds: ended.map(({ keyId }) => keyId) },
    }),
  };
}

/** A name stands for the whole lineage, an id for one key. */
function lineageOf(key: Key, { selected }: OrganizationState, selector: KeySelector): Key[] {
  if (selector.by !== 'name') return [];
  return selected.filter(
    (one) => one.lineageId === key.lineageId && one.keyId !== key.keyId && one.standing.kind !== 'revoked',
  );
}

export function revoked(
  key: Key,
  { mutation, reason, reasonDetail }: Pick<RevokeKey, 'mutation' | 'reason' | 'reasonDetail'>,
  now: Date,
): Key {
  return revise(key, {
    standing: { kind: 'revoked', time: now, by: mutation.actor, reason, detail: reasonDetail },
  });
}

function toEvent(
  { before, after }: { before: Key; after: Key },
  ask: RevokeKey,
  draw: RevokeKeyDraw,
  at: number,
): EventDraft {
  const eventId = draw.eventIds[at];
  if (eventId === undefined) throw new Error('a lineage has more than two keys that can end');
  return {
    eventId,
    type: 'key.revoked',
    time: draw.now,
    mutation: ask.mutation,
    key: after,
    before: { state: stateOf(before, draw.now) },
    after: { state: 'REVOKED' },
    reason: ask.reason,
    ...(ask.reasonDetail !== '' && { reasonDetail: ask.reasonDetail }),
  };
}

function toRevokedKey([key, previousKey]: readonly Key[]): RevokedKey {
  if (!key) throw new Error('a revocation names no key');
  return { key, ...(previousKey && { previousKey }) };
}
