import type { AuditEvent } from '../gen/keyreeve/v1/audit_event.js';
import { AuditServiceService, type ListAuditEventsRequest } from '../gen/keyreeve/v1/audit_service.js';
import type { Calls } from './calls.js';
import type { InOrganization } from './change.js';
import type { Deadline } from './deadline.js';
import type { Answer } from './refusal.js';

export interface ListAuditEvents extends InOrganization {
  /** Only events about this key. Absent or empty: all. */
  readonly keyId?: string | undefined;
  /** Only events of these types: `key.created`. Absent or empty: all. */
  readonly types?: readonly string[] | undefined;
  /** Only later events than this one. Absent: from the first. */
  readonly afterSequence?: bigint | undefined;
  /** At most 500. Absent: 50. */
  readonly pageSize?: number | undefined;
  /** The `nextPageToken` of the page before. Absent or empty: the first page. */
  readonly pageToken?: string | undefined;
}

export interface ListedAuditEvents {
  /** Oldest first; each a CloudEvent as JSON, byte for byte what the audit topic carries. */
  readonly events: readonly Readonly<AuditEvent>[];
  /** Empty: this is the last page. */
  readonly nextPageToken: string;
  /** Of the organization's newest event. 0: it has none. */
  readonly headSequence: bigint;
  readonly headHash: string;
}

export async function listAuditEvents(
  calls: Calls,
  ask: ListAuditEvents,
  deadline: Deadline,
): Promise<Answer<ListedAuditEvents>> {
  const { keyspace, organizationId, keyId = '', types = [], afterSequence = 0n, pageSize = 0, pageToken = '' } = ask;
  const request: ListAuditEventsRequest = {
    keyspace,
    organizationId,
    keyId,
    types: [...types],
    afterSequence,
    pageSize,
    pageToken,
  };
  const listed = await calls.read(AuditServiceService.listAuditEvents, request, deadline);
  return listed.ok ? { ok: true, ...listed.response } : listed;
}
