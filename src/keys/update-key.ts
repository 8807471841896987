import { type Change, type OrganizationState, unchanged } from './change.js';
import type { KeyFacts, Mutation } from './event.js';
import { judgeEndless, judgeExpireTime } from './expiration.js';
import { endsLater, etagOf, type Key, revise, sameLabels, type Standing, stateOf } from './key.js';
import type { Keyspace } from './keyspace.js';
import { nameFor } from './new-key.js';
import { type Refusal, isRefusal } from './refusal.js';
import { repeated } from './repeat.js';
import { type KeySelector, selectKey } from './select-key.js';

/** A request to change a key, its fields in normal form. Fields that are absent stay as they are. */
export interface UpdateKey {
  readonly mutation: Mutation;
  readonly selector: KeySelector;
  /** Empty: not compared. */
  readonly etag: string;
  /** Empty: the keyspace's default. */
  readonly name?: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly scopes?: readonly string[];
  /** Null: the key does not expire. */
  readonly expireTime?: Date | null;
  readonly disabled?: boolean;
}

export interface UpdateKeyDraw {
  readonly now: Date;
  readonly eventId: string;
}

/** Whether it asks for something by which a key is good for less, be it so already. */
export function canTakeAway({ scopes, expireTime, disabled }: UpdateKey): boolean {
  return scopes !== undefined || (expireTime !== undefined && expireTime !== null) || disabled === true;
}

/** What an update can change of a record. */
type Changes = Partial<Pick<Key, 'name' | 'nameIsUnique' | 'labels' | 'scopes' | 'standing'>> & {
  readonly expireTime?: Date | null;
};

/** Changes a key in place. What is as it was asked to be is not changed, and where all is, nothing happens. */
export function updateKey(
  state: OrganizationState,
  ask: UpdateKey,
  keyspace: Keyspace,
  draw: UpdateKeyDraw,
): Change<Key> | Refusal {
  const earlier = repeated(state, ask.mutation);
  if (isRefusal(earlier)) return earlier;
  if (earlier?.[0]) return unchanged(earlier[0]);

  const key = selectKey(state.selected, ask.selector);
  if (isRefusal(key)) return key;
  if (key.standing.kind === 'revoked') return { refused: 'KEY_REVOKED' };
  if (ask.etag !== '' && ask.etag !== etagOf(key)) return { refused: 'ETAG_MISMATCH' };
  const changes = changesOf(key, ask, state, keyspace, draw.now);
  if (isRefusal(changes)) return changes;
  if (key.supersededBy !== undefined && !onlyNarrows(key, changes)) return { refused: 'KEY_SUPERSEDED' };

  const { mutation } = ask;
  const request = mutation.request && { request: { mutation, keyIds: [key.keyId] } };
  if (Object.keys(changes).length === 0) return { ...unchanged(key), ...request };
  const after = apply(key, changes);
  return {
    answer: after,
    widens: widens(key, changes),
    put: [{ before: key, after }],
    events: [
      {
        eventId: draw.eventId,
        type: 'key.updated',
        time: draw.now,
        mutation,
        key: after,
        before: changedFactsOf(changes, key, draw.now),
        after: changedFactsOf(changes, after, draw.now),
      },
    ],
    ...request,
  };
}

/** The fields that would differ from the record's. */
function changesOf(
  key: Key,
  ask: UpdateKey,
  { nameHolder }: OrganizationState,
  keyspace: Keyspace,
  now: Date,
): Changes | Refusal {
  const name = ask.name === undefined ? key.name : nameFor(ask.name, keyspace, 'key.name');
  if (isRefusal(name)) return name;
  const expireTime = ask.expireTime === undefined ? key.expireTime : toExpireTime(key, ask.expireTime, keyspace, now);
  if (isRefusal(expireTime)) return expireTime;
  const { labels = key.labels, scopes = key.scopes, disabled = key.standing.kind === 'disabled' } = ask;
  const renamed = name !== key.name;
  if (renamed && keyspace.names.unique && nameHolder) {
    return { refused: 'NAME_TAKEN' };
  }
  const standing: Standing = { kind: disabled ? 'disabled' : 'usable' };
  return {
    ...(renamed && { name, nameIsUnique: keyspace.names.unique }),
    ...(!sameLabels(labels, key.labels) && { labels }),
    ...(!sameScopes(scopes, key.scopes) && { scopes }),
    ...(expireTime?.getTime() !== key.expireTime?.getTime() && { expireTime: expireTime ?? null }),
    ...(standing.kind !== key.standing.kind && { standing }),
  };
}

function toExpireTime(key: Key, wanted: Date | null, keyspace: Keyspace, now: Date): Date | undefined | Refusal {
  const field = 'key.expire_time';
  const later = endsLater(key, wanted);
  if (!wanted) return later ? judgeEndless(keyspace, field) : undefined;
  // The keyspace's maximum never keeps a key from ending earlier: it may have more than that, imported or from before.
  return judgeExpireTime(wanted, { field, now, ...(later && { within: { keyspace, createTime: key.createTime } }) });
}

function apply(key: Key, { expireTime, ...fields }: Changes): Key {
  if (expireTime === undefined) return revise(key, fields);
  const { expireTime: _, ...endless } = revise(key, fields);
  return expireTime ? { ...endless, expireTime } : endless;
}

function widens(key: Key, { scopes, expireTime, standing }: Changes): boolean {
  return (
    standing?.kind === 'usable' ||
    (expireTime !== undefined && endsLater(key, expireTime)) ||
    scopes?.some((scope) => !key.scopes.includes(scope)) === true
  );
}

/** Whether it only switches the key off and ends it earlier: all that a superseded key accepts. */
function onlyNarrows(key: Key, { expireTime, standing, ...others }: Changes): boolean {
  if (Object.keys(others).length > 0 || standing?.kind === 'usable') return false;
  return expireTime === undefined || !endsLater(key, expireTime);
}

/** Of the facts that change, how they stand in the record. */
function changedFactsOf(changes: Changes, key: Key, now: Date): KeyFacts {
  return {
    ...(changes.name !== undefined && { name: key.name }),
    ...(changes.labels && { labels: key.labels }),
    ...(changes.scopes && { scopes: key.scopes }),
    ...(changes.expireTime !== undefined && { expireTime: key.expireTime ?? null }),
    ...((changes.standing !== undefined || changes.expireTime !== undefined) && { state: stateOf(key, now) }),
  };
}

function sameScopes(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((scope, at) => scope === b[at]);
}
