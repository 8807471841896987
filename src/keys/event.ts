import type { Actor } from './actor.js';
import type { Key, KeyState, RevocationReason } from './key.js';
import type { OrganizationRef } from './organization.js';

export const EVENT_TYPES = [
  'key.created',
  'key.revoked',
  'key.updated',
  'key.rotated',
  'key.imported',
  'organization.updated',
] as const;
export type EventType = (typeof EVENT_TYPES)[number];

/** Those of a key's facts that an event tells of. */
export interface KeyFacts {
  readonly name?: string;
  readonly type?: string;
  readonly state?: KeyState;
  readonly scopes?: readonly string[];
  readonly labels?: Readonly<Record<string, string>>;
  /** Null: does not expire. */
  readonly expireTime?: Date | null;
}

/** Those of an organization's facts that an event tells of. */
export interface OrganizationFacts {
  readonly plan?: string;
  readonly suspended?: boolean;
}

/** Who asks for a change, as its event will say. */
export interface Mutation {
  readonly organization: OrganizationRef;
  /** The authenticated service's name in the policy. */
  readonly caller: string;
  readonly actor: Actor;
  /** W3C Trace Context's, of version 00; absent where the call was part of no trace. It makes no request another one. */
  readonly traceparent?: string;
  /** Absent where the caller gave none: then a repeat is a new request. */
  readonly request?: RequestIdentity;
}

/** How a repeated request is recognised: unique per caller, organization and method. */
export interface RequestIdentity {
  readonly method: string;
  readonly requestId: string;
  /** SHA-256 over the normalized request, 64 lowercase hex digits. */
  readonly hash: string;
}

/** An event before it has its place in the chain. */
export interface EventDraft {
  /** TypeID `evt_…`, drawn before the transaction, so that a rule run twice makes the same event. */
  readonly eventId: string;
  readonly type: EventType;
  readonly time: Date;
  readonly mutation: Mutation;
  /** Absent: the event is about the organization itself. */
  readonly key?: Key;
  readonly before?: KeyFacts | OrganizationFacts;
  readonly after?: KeyFacts | OrganizationFacts;
  /** In a rotation: the key whose place was taken, and what that meant for it. */
  readonly previous?: { readonly key: Key; readonly before: KeyFacts; readonly after: KeyFacts };
  readonly reason?: RevocationReason;
  readonly reasonDetail?: string;
}

/** An event in its place: what is stored, and what a sink receives. */
export interface AuditEvent extends OrganizationRef {
  readonly eventId: string;
  readonly type: EventType;
  /** Empty: the event is about the organization itself. */
  readonly keyId: string;
  /** In a rotation: the key whose place was taken. */
  readonly previousKeyId?: string;
  /** Never earlier than that of the organization's event before it. */
  readonly time: Date;
  /** 1 for an organization's first event, without gaps. */
  readonly sequence: number;
  /** 64 lowercase hex digits. */
  readonly hash: string;
  /** The CloudEvents envelope as RFC 8785 canonical JSON, `data.hash` included. */
  readonly cloudEvent: string;
}
