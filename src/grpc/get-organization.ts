import type { GetOrganizationRequest, GetOrganizationResponse } from '../gen/keyreeve/v1/organization_service.js';
import { newOrganization } from '../keys/organization.js';
import { toTenant } from './callers.js';
import { toOrganizationMessage } from './messages.js';
import type { Parts } from './parts.js';
import type { Unary } from './unary.js';

export function handleGetOrganization({
  store,
  keyspaces,
}: Parts): Unary<GetOrganizationRequest, GetOrganizationResponse> {
  return async (request, call) => {
    const { keyspace, organization, isVisible } = toTenant(request, call.caller, keyspaces);
    call.note({ keyspace: keyspace.name });
    const record = isVisible
      ? await store.findOrganization(organization, call.deadline)
      : newOrganization(organization);
    return { organization: toOrganizationMessage(record, keyspace) };
  };
}
