import { type Change, isEmpty, type Load, type OrganizationState, type Rule, toCommit } from '../../src/keys/change.js';
import type { AuditEvent } from '../../src/keys/event.js';
import { isCurrent, type Key } from '../../src/keys/key.js';
import { newOrganization, type Organization, type OrganizationRef } from '../../src/keys/organization.js';
import { isRefusal, type Refusal } from '../../src/keys/refusal.js';
import type { KeySelector } from '../../src/keys/select-key.js';
import { acme, SOURCE } from './domain.js';

/** One organization as plain values: what the rules say, without any engine. Stores are compared with it, not built on it. */
export class Model {
  organization: Organization;
  readonly keys = new Map<string, Key>();
  readonly events: AuditEvent[] = [];
  readonly #requests = new Map<string, { hash: string; keyIds: readonly string[] }>();

  constructor(ref: OrganizationRef = acme) {
    this.organization = newOrganization(ref);
  }

  change<A>(load: Omit<Load, 'organization'>, rule: Rule<A>): A | Refusal {
    const state = this.#load(load);
    const answer: Change<A> | Refusal = rule(state);
    if (isRefusal(answer)) return answer;
    if (isEmpty(answer)) return answer.answer;
    const commit = toCommit(state, answer, SOURCE);
    this.organization = commit.organization;
    for (const { after } of commit.put) this.keys.set(after.keyId, after);
    this.events.push(...commit.events.map(({ published: _, ...event }) => event));
    if (commit.request) {
      const { caller, method, requestId, hash, keyIds } = commit.request;
      this.#requests.set([caller, method, requestId].join(' '), { hash, keyIds });
    }
    return answer.answer;
  }

  #load({ selector, withLineage, keyIds, name, digests, request }: Omit<Load, 'organization'>): OrganizationState {
    const nameHolder = name === undefined ? undefined : this.#keys().find((key) => isCurrent(key) && key.name === name);
    const digestHolder = this.#keys().find((key) =>
      digests?.some((digest) => Buffer.compare(digest, key.digest.bytes) === 0),
    );
    const known = request && this.#requests.get([request.caller, request.method, request.requestId].join(' '));
    return {
      organization: this.organization,
      selected: selector ? this.#select(selector, withLineage === true) : [],
      listed: this.#keys().filter(({ keyId }) => keyIds?.includes(keyId)),
      ...(nameHolder && { nameHolder }),
      ...(digestHolder && { digestHolder }),
      ...(known && { request: { hash: known.hash, keys: known.keyIds.map((id) => this.#key(id)) } }),
    };
  }

  /** By name, all that could matter to `selectKey`, and more: which of them does is its decision. */
  #select(selector: KeySelector, withLineage: boolean): Key[] {
    const keys = this.#keys();
    const meant = keys.filter((key) => isMeant(key, selector));
    if (!withLineage) return meant;
    const lineages = new Set(meant.map(({ lineageId }) => lineageId));
    return keys.filter(
      (key) => meant.includes(key) || (lineages.has(key.lineageId) && key.standing.kind !== 'revoked'),
    );
  }

  #keys(): Key[] {
    return [...this.keys.values()];
  }

  #key(keyId: string): Key {
    const key = this.keys.get(keyId);
    if (!key) throw new Error('a request names a key that is not there');
    return key;
  }
}

function isMeant(key: Key, selector: KeySelector): boolean {
  switch (selector.by) {
    case 'key_id':
      return key.keyId === selector.keyId;
    case 'client_id':
      return key.clientId === selector.clientId;
    case 'name':
      return key.name === selector.name;
  }
}
