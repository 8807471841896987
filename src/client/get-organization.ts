import { OrganizationServiceService } from '../gen/keyreeve/v1/organization_service.js';
import type { Calls } from './calls.js';
import type { InOrganization } from './change.js';
import type { Deadline } from './deadline.js';
import { given } from './fault.js';
import { type Organization, toOrganization } from './organization.js';
import type { Answer } from './refusal.js';

export async function getOrganization(
  calls: Calls,
  { keyspace, organizationId }: InOrganization,
  deadline: Deadline,
): Promise<Answer<{ readonly organization: Organization }>> {
  const request = { keyspace, organizationId };
  const got = await calls.read(OrganizationServiceService.getOrganization, request, deadline);
  return got.ok ? { ok: true, organization: toOrganization(given(got.response.organization)) } : got;
}
