import { randomUUID } from 'node:crypto';

import type { Actor } from './key.js';
import { toActorMessage } from './key.js';

/** The tenant that a call is about. */
export interface InOrganization {
  readonly keyspace: string;
  readonly organizationId: string;
}

/** What every request for a change has. */
export interface Change extends InOrganization {
  /** On whose behalf. Left out by callers that may assert none, who are the actor themselves. */
  readonly actor?: Actor | undefined;
  /**
   * Whoever repeats a change under the same id, within 24 hours, makes nothing twice. Absent: drawn anew, and the same for
   * every try of this call. To repeat a change after a crash, choose and keep it beforehand.
   */
  readonly requestId?: string | undefined;
}

export function toChangeFields({ keyspace, organizationId, actor, requestId }: Change) {
  return {
    keyspace,
    organizationId,
    actor: actor && toActorMessage(actor),
    // An empty one would say that there is none.
    requestId: requestId === undefined || requestId === '' ? randomUUID() : requestId,
  };
}
