import { Organization as OrganizationMessage } from '../gen/keyreeve/v1/organization.js';
import type { UpdateOrganizationRequest, UpdateOrganizationResponse } from '../gen/keyreeve/v1/organization_service.js';
import { newEventId } from '../keys/ids.js';
import { canTakeAwayFromAll, updateOrganization, type UpdateOrganizationDraw } from '../keys/update-organization.js';
import { orRefuse } from './errors.js';
import { toOrganizationMessage } from './messages.js';
import { commit, enforce, openChange, toLoad } from './mutation.js';
import type { Parts } from './parts.js';
import type { Unary } from './unary.js';
import { parseUpdateMask } from './update-mask.js';

export function handleUpdateOrganization(parts: Parts): Unary<UpdateOrganizationRequest, UpdateOrganizationResponse> {
  const { keyspaces, clock } = parts;
  return async (request, call) => {
    const { keyspace, ask } = openChange('UpdateOrganization', request, call, keyspaces, parseFields);
    const draw: UpdateOrganizationDraw = { now: clock.now(), eventId: newEventId() };

    const load = toLoad(ask.mutation);
    const organization = orRefuse(
      await commit(load, (state) => updateOrganization(state, ask, keyspace, draw), call, parts),
    );
    return {
      organization: toOrganizationMessage(organization, keyspace),
      enforcement: await enforce(canTakeAwayFromAll(ask), keyspace, call, parts),
    };
  };
}

/** The fields that the mask names. */
function parseFields({
  organization = OrganizationMessage.fromPartial({}),
  updateMask,
  etag,
}: UpdateOrganizationRequest) {
  const mask = orRefuse(parseUpdateMask(updateMask, ['plan', 'suspended']));
  const { plan, suspended } = organization;
  return { etag, ...(mask.has('plan') && { plan }), ...(mask.has('suspended') && { suspended }) };
}
