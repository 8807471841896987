import { createHash } from 'node:crypto';

import { canonicalJson } from './chain.js';
import type { OrganizationState } from './change.js';
import type { Mutation } from './event.js';
import type { Key } from './key.js';
import type { Refusal } from './refusal.js';

/** A repeat is promised to be recognised for 24 h; twice that allows for a clock that was set. */
export const REQUEST_KEPT_MS = 48 * 60 * 60 * 1000;

/**
 * What makes two requests the same: SHA-256 over the canonical JSON of the normalized request. The actor is part of it,
 * its permissions are not: those may differ between a request and its repeat.
 */
export function requestHash(normalized: object): string {
  return createHash('sha256').update(canonicalJson(normalized)).digest('hex');
}

/** The keys that the first request of this identity answered, as they are now; undefined for a new request. */
export function repeated(state: OrganizationState, mutation: Mutation): readonly Key[] | Refusal | undefined {
  if (!mutation.request || !state.request) return undefined;
  if (state.request.hash !== mutation.request.hash) return { refused: 'REQUEST_ID_REUSED' };
  return state.request.keys;
}
