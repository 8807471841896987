import type { Actor as ActorMessage } from '../gen/keyreeve/v1/actor.js';
import type { Load } from '../keys/change.js';
import type { Mutation } from '../keys/event.js';
import { parseRequestId } from '../keys/fields.js';
import { requestHash } from '../keys/repeat.js';
import { parseActor } from './actor.js';
import { permitChange, type Tenant } from './callers.js';
import { orRefuse } from './errors.js';
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
  { caller }: Pick<Call, 'caller'>,
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
    ...(requestId !== undefined && { request: { method, requestId, hash: requestHash({ actor, ...fields }) } }),
  };
  return { ...fields, mutation };
}

/** What any change needs to see: the organization, and what an earlier request of this identity answered. */
export function toLoad({ organization, caller, request }: Mutation): Pick<Load, 'organization' | 'request'> {
  if (!request) return { organization };
  return { organization, request: { caller, method: request.method, requestId: request.requestId } };
}
