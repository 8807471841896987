import type { Actor as ActorMessage } from '../gen/keyreeve/v1/actor.js';
import type { Enforcement as EnforcementMessage } from '../gen/keyreeve/v1/enforcement.js';
import { isEmpty, type Load, type Rule } from '../keys/change.js';
import { Deadline } from '../keys/clock.js';
import type { Mutation } from '../keys/event.js';
import { parseRequestId } from '../keys/fields.js';
import { type Refusal, isRefusal } from '../keys/refusal.js';
import { cacheTtlMsMax, type Keyspace } from '../keys/keyspace.js';
import type { OrganizationRef } from '../keys/organization.js';
import { requestHash } from '../keys/repeat.js';
import { parseActor } from './actor.js';
import { type Keyspaces, permitChange, type Tenant, toTenant } from './callers.js';
import { orRefuse } from './errors.js';
import { toEnforcementMessage } from './messages.js';
import type { Parts } from './parts.js';
import type { Call } from './unary.js';

/** What every request to change something holds, beside its tenant. */
interface MutationRequest {
  readonly actor?: ActorMessage | undefined;
  readonly requestId: string;
}

/**
 * A request to change something of a tenant's, once the policy allows it and the actor may.
 * @param method the call's name: a request id holds within it
 * @param parse the rest of the request in normal form; that and the actor are what makes two requests the same
 * @throws Refused
 */
export function toAsk<Fields extends object>(
  method: string,
  request: MutationRequest,
  tenant: Tenant,
  { caller, traceparent }: Pick<Call, 'caller' | 'traceparent'>,
  parse: () => Fields,
): Fields & { readonly mutation: Mutation } {
  permitChange(tenant);
  const actor = orRefuse(parseActor(request.actor, caller, tenant.keyspace));
  const requestId = orRefuse(parseRequestId(request.requestId));
  const fields = parse();
  const mutation: Mutation = {
    organization: tenant.organization,
    caller: caller.name,
    actor,
    ...(traceparent !== undefined && { traceparent }),
    ...(requestId !== undefined && { request: { method, requestId, hash: requestHash({ actor, ...fields }) } }),
  };
  return { ...fields, mutation };
}

/**
 * Begins a request to change something: whose it is, and what it asks for.
 * @throws Refused
 */
export function openChange<R extends OrganizationRef & MutationRequest, Fields extends object>(
  method: string,
  request: R,
  call: Pick<Call, 'caller' | 'traceparent' | 'note'>,
  keyspaces: Keyspaces,
  parse: (request: R) => Fields,
): Tenant & { readonly ask: Fields & { readonly mutation: Mutation } } {
  const tenant = toTenant(request, call.caller, keyspaces);
  call.note({ keyspace: tenant.keyspace.name });
  return { ...tenant, ask: toAsk(method, request, tenant, call, () => parse(request)) };
}

/** What any change needs to see: the organization, and what an earlier request of this identity answered. */
export function toLoad({ organization, caller, request }: Mutation): Pick<Load, 'organization' | 'request'> {
  if (!request) return { organization };
  return { organization, request: { caller, method: request.method, requestId: request.requestId } };
}

/**
 * Commits what the rule answers. While the audit is too far behind, what would widen access is refused: only that, for
 * whoever takes access away must not be kept waiting.
 * @throws Unwanted, StoreFault
 */
export async function commit<A>(
  load: Load,
  rule: Rule<A>,
  call: Pick<Call, 'deadline' | 'beginChange'>,
  { store, backlogExceeded }: Pick<Parts, 'store' | 'backlogExceeded'>,
): Promise<A | Refusal> {
  const backlogged = backlogExceeded();
  call.beginChange();
  return store.change(
    load,
    (state) => {
      const change = rule(state);
      // A repeat makes no event, so its answer need not be kept back.
      const isHeldBack = backlogged && !isRefusal(change) && change.widens && !isEmpty(change);
      return isHeldBack ? { refused: 'AUDIT_BACKLOG' } : change;
    },
    call.deadline,
  );
}

// Kept back of what is left: an answer that comes too late tells the caller nothing of a change that was made.
const ANSWER_SHARE = 0.2;
const ANSWER_MS_MAX = 500;

/**
 * Since when, or from when on at the latest, nobody is let in any more by what a committed change has taken away. A change
 * that took nothing away waits for nobody; one that found it taken away already waits, as nobody may have waited before.
 */
export async function enforce(
  takesAway: boolean,
  keyspace: Keyspace,
  { deadline }: Pick<Call, 'deadline'>,
  { store, clock }: Pick<Parts, 'store' | 'clock'>,
): Promise<EnforcementMessage> {
  const leftMs = deadline.remainingMs();
  const patience = Deadline.after(leftMs - Math.min(leftMs * ANSWER_SHARE, ANSWER_MS_MAX), clock);
  const enforcement = takesAway ? await store.enforce(patience) : ({ complete: true } as const);
  return toEnforcementMessage(enforcement, clock.now(), cacheTtlMsMax(keyspace));
}
