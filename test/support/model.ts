import { type Change, type Load, type OrganizationState, type Rule, toCommit } from '../../src/keys/change.js';
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
    const commit = toCommit(state, answer, SOURCE);
    this.organization = commit.organization;
    for (const { after } of commit.put) this.keys.set(after.keyId, after);
    this.events.push(...commit.events);
    if (commit.request) {
      const { caller, method, requestId, hash, keyIds } = commit.request;
      this.#requests.set([caller, method, requestId].join(' '), { hash, keyIds });
    }
    return answer.answer;
  }

  #load({ selector, name, request }: Omit<Load, 'organization'>): OrganizationState {
    const nameHolder = name === undefined ? undefined : this.#keys().find((key) => isCurrent(key) && key.name === name);
    const known = request && this.#requests.get([request.caller, request.method, request.requestId].join(' '));
    return {
      organization: this.organization,
      selected: selector ? this.#select(selector) : [],
      ...(nameHolder && { nameHolder }),
      ...(known && { request: { hash: known.hash, keys: known.keyIds.map((id) => this.#key(id)) } }),
    };
  }

  /** All that could matter to `selectKey`, and more: which of them does is its decision. */
  #select(selector: KeySelector): Key[] {
    const keys = this.#keys();
    if (selector.by !== 'name') return keys;
    const lineages = new Set(keys.filter((key) => key.name === selector.name).map((key) => key.lineageId));
    return keys.filter((key) => lineages.has(key.lineageId));
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
