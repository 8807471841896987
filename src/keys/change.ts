import { seal } from './chain.js';
import type { AuditEvent, EventDraft, Mutation } from './event.js';
import { isCurrent, type Key } from './key.js';
import type { Organization, OrganizationRef } from './organization.js';
import type { Refusal } from './refusal.js';
import type { KeySelector } from './select-key.js';

/** What a rule needs to see of one organization. */
export interface Load {
  readonly organization: OrganizationRef;
  /** Load the keys that it selects. */
  readonly selector?: KeySelector;
  /** Load the current key that holds this name. */
  readonly name?: string;
  /** Load what an earlier request of this identity answered. */
  readonly request?: { readonly caller: string; readonly method: string; readonly requestId: string };
}

/** What a store holds of it, as of the transaction that will commit the rule's answer. */
export interface OrganizationState {
  readonly organization: Organization;
  /** See `selectKey`; empty where the load has no selector or nothing matches. */
  readonly selected: readonly Key[];
  readonly nameHolder?: Key;
  readonly request?: { readonly hash: string; readonly keys: readonly Key[] };
}

/** A rule's answer, to be committed whole or not at all. */
export interface Change<A> {
  readonly answer: A;
  /** Keys made or altered, each with its next revision. */
  readonly put: readonly PutKey[];
  /** In the order in which they get their sequences. */
  readonly events: readonly EventDraft[];
  /** What a repeat of this request will be answered with. */
  readonly request?: { readonly mutation: Mutation; readonly keyIds: readonly string[] };
}

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
  readonly events: readonly AuditEvent[];
  readonly request?: RequestRecord;
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
  const sealed = seal(organization, change.events, source);
  const places = change.put.reduce((sum, { before, after }) => sum + place(after) - (before ? place(before) : 0), 0);
  return {
    organization: {
      ...organization,
      ...sealed.head,
      keyCount: organization.keyCount + places,
      revision: organization.revision + 1,
    },
    put: change.put,
    events: sealed.events,
    ...(change.request && { request: toRequestRecord(change.request) }),
  };
}

/** A change that writes nothing: the answer to a repeat. */
export function unchanged<A>(answer: A): Change<A> {
  return { answer, put: [], events: [] };
}

export function isEmpty(change: Change<unknown>): boolean {
  return change.put.length === 0 && change.events.length === 0 && change.request === undefined;
}

function place(key: Key): number {
  return isCurrent(key) ? 1 : 0;
}

function toRequestRecord({ mutation, keyIds }: NonNullable<Change<unknown>['request']>): RequestRecord {
  if (!mutation.request) throw new Error('a request to remember has no request id');
  const { method, requestId, hash } = mutation.request;
  return { ...mutation.organization, caller: mutation.caller, method, requestId, hash, keyIds };
}
