import { recover, seal } from './chain.js';
import type { AuditEvent, EventDraft, Mutation } from './event.js';
import { isCurrent, type Key } from './key.js';
import { type Organization, type OrganizationRef, type OrganizationSettings, withSettings } from './organization.js';
import type { Refusal } from './refusal.js';
import type { KeySelector } from './select-key.js';

/** What a rule needs to see of one organization. */
export interface Load {
  readonly organization: OrganizationRef;
  /** Load the keys that it selects. */
  readonly selector?: KeySelector;
  /** Load the unrevoked keys of the lineages of those, too. */
  readonly withLineage?: boolean;
  /** Load these keys. Ids of other organizations, and of no key, are passed over. */
  readonly keyIds?: readonly string[];
  /** Load the current key that holds this name. */
  readonly name?: string;
  /**
   * Load the key of the keyspace, of any organization, that has one of these digests. A digest that another change
   * takes before this one commits makes the rule run again.
   */
  readonly digests?: readonly Uint8Array[];
  /** Load what an earlier request of this identity answered. */
  readonly request?: { readonly caller: string; readonly method: string; readonly requestId: string };
}

/** What a store holds of it, as of the transaction that will commit the rule's answer. */
export interface OrganizationState {
  readonly organization: Organization;
  /** See `selectKey`, and the other keys of their lineages where the load asks for them. */
  readonly selected: readonly Key[];
  /** Those of the load's `keyIds`, in no order. */
  readonly listed: readonly Key[];
  readonly nameHolder?: Key;
  /** May be of another organization. */
  readonly digestHolder?: Key;
  readonly request?: { readonly hash: string; readonly keys: readonly Key[] };
}

/** A rule's answer, to be committed whole or not at all. */
export interface Change<A> {
  readonly answer: A;
  /** What is set for the organization from now on; absent: what was. */
  readonly settings?: OrganizationSettings;
  /** Whether it gives access that was not there. Such changes are refused while the audit is too far behind. */
  readonly widens: boolean;
  /**
   * Events that are in the sink and were lost from the store, in order, the first one next to the head. They come before
   * `events`, and count as published.
   */
  readonly recovered?: readonly AuditEvent[];
  /** Keys made or altered, each with its next revision. */
  readonly put: readonly PutKey[];
  /** In the order in which they get their sequences. */
  readonly events: readonly EventDraft[];
  /** What a repeat of this request will be answered with. */
  readonly request?: { readonly mutation: Mutation; readonly keyIds: readonly string[] };
}

/** Adapters write them in this order: a name is free for a new key once the one that had it is written. */
export interface PutKey {
  /** Absent: a new key. */
  readonly before?: Key;
  readonly after: Key;
}

/**
 * Decides from what is stored. A store may run it several times, each on fresh state, and commits one answer: so it
 * draws nothing itself (ids, secrets, the time) and touches nothing outside.
 */
export type Rule<A> = (state: OrganizationState) => Change<A> | Refusal;

/** The records that a change comes to, for an adapter to write as they are. */
export interface Commit {
  readonly organization: Organization;
  readonly put: readonly PutKey[];
  readonly events: readonly CommittedEvent[];
  readonly request?: RequestRecord;
}

export interface CommittedEvent extends AuditEvent {
  /** Whether the sink has it already. */
  readonly published: boolean;
}

export interface RequestRecord extends OrganizationRef {
  readonly caller: string;
  readonly method: string;
  readonly requestId: string;
  readonly hash: string;
  readonly keyIds: readonly string[];
}

/**
 * Puts a change into records: the events sealed into the chain, the head moved on.
 * @param source the events' CloudEvents `source`, `urn:keyreeve:<installation>`
 */
export function toCommit(state: OrganizationState, change: Change<unknown>, source: string): Commit {
  const { organization } = state;
  const recovered = change.recovered ?? [];
  const sealed = seal(recover(organization, recovered), change.events, source);
  const places = change.put.reduce((sum, { before, after }) => sum + place(after) - (before ? place(before) : 0), 0);
  return {
    organization: {
      ...(change.settings ? withSettings(sealed.head, change.settings) : sealed.head),
      keyCount: organization.keyCount + places,
      revision: organization.revision + 1,
    },
    put: change.put,
    events: [
      ...recovered.map((event) => ({ ...event, published: true })),
      ...sealed.events.map((event) => ({ ...event, published: false })),
    ],
    ...(change.request && { request: toRequestRecord(change.request) }),
  };
}

/** A change that writes nothing: the answer to a repeat. */
export function unchanged<A>(answer: A): Change<A> {
  return { answer, widens: false, put: [], events: [] };
}

export function isEmpty(change: Change<unknown>): boolean {
  const { settings, recovered = [], put, events, request } = change;
  return !settings && recovered.length === 0 && put.length === 0 && events.length === 0 && !request;
}

function place(key: Key): number {
  return isCurrent(key) ? 1 : 0;
}

function toRequestRecord({ mutation, keyIds }: NonNullable<Change<unknown>['request']>): RequestRecord {
  if (!mutation.request) throw new Error('a request to remember has no request id');
  const { method, requestId, hash } = mutation.request;
  return { ...mutation.organization, caller: mutation.caller, method, requestId, hash, keyIds };
}
