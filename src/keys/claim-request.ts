import { type Change, type OrganizationState, unchanged } from './change.js';
import type { Mutation } from './event.js';
import { type Refusal, isRefusal } from './refusal.js';
import { repeated } from './repeat.js';

/**
 * Remembers a request whose parts are then committed one by one, so that no other request comes under its id. A repeat
 * goes on: its parts tell by themselves what was done already.
 */
export function claimRequest(state: OrganizationState, mutation: Mutation): Change<undefined> | Refusal {
  const earlier = repeated(state, mutation);
  if (isRefusal(earlier)) return earlier;
  return { ...unchanged(undefined), ...(!earlier && { request: { mutation, keyIds: [] } }) };
}
