import { Organization as OrganizationMessage } from '../gen/keyreeve/v1/organization.js';
import { OrganizationServiceService, type UpdateOrganizationRequest } from '../gen/keyreeve/v1/organization_service.js';
import type { Calls } from './calls.js';
import { type Change, toChangeFields } from './change.js';
import type { Deadline } from './deadline.js';
import { given } from './fault.js';
import { type Enforcement, toEnforcement } from './key.js';
import { type Organization, toOrganization } from './organization.js';
import type { Answer } from './refusal.js';

export interface UpdateOrganization extends Change {
  /** What is named is changed, and nothing else. An empty plan: the keyspace's default. */
  readonly set: { readonly plan?: string | undefined; readonly suspended?: boolean | undefined };
  /** The organization must still have it (`ETAG_MISMATCH`). Absent: not compared. */
  readonly etag?: string | undefined;
}

export interface UpdatedOrganization {
  readonly organization: Organization;
  readonly enforcement: Enforcement;
}

export async function updateOrganization(
  calls: Calls,
  ask: UpdateOrganization,
  deadline: Deadline,
): Promise<Answer<UpdatedOrganization>> {
  const { plan, suspended } = ask.set;
  const request: UpdateOrganizationRequest = {
    ...toChangeFields(ask),
    organization: OrganizationMessage.fromPartial({ plan: plan ?? '', suspended: suspended ?? false }),
    updateMask: [...(plan === undefined ? [] : ['plan']), ...(suspended === undefined ? [] : ['suspended'])],
    etag: ask.etag ?? '',
  };
  const updated = await calls.change(OrganizationServiceService.updateOrganization, request, deadline);
  if (!updated.ok) return updated;
  const { organization, enforcement } = updated.response;
  return {
    ok: true,
    organization: toOrganization(given(organization)),
    enforcement: toEnforcement(given(enforcement)),
  };
}
