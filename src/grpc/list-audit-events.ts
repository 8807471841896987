import type { ListAuditEventsRequest, ListAuditEventsResponse } from '../gen/keyreeve/v1/audit_service.js';
import { EVENT_TYPES, type EventType } from '../keys/event.js';
import { isKeyId } from '../keys/ids.js';
import { GENESIS_HASH } from '../keys/organization.js';
import type { EventQuery } from '../store/port.js';
import { toTenant } from './callers.js';
import { orRefuse } from './errors.js';
import { parsePageToken, toPageToken } from './page-token.js';
import { fillPage, parsePageSize } from './paging.js';
import type { Parts } from './parts.js';
import type { Unary } from './unary.js';

export function handleListAuditEvents({
  store,
  keyspaces,
  clock,
}: Parts): Unary<ListAuditEventsRequest, ListAuditEventsResponse> {
  return async (request, call) => {
    const { keyspace, organization, isVisible } = toTenant(request, call.caller, keyspaces);
    call.note({ keyspace: keyspace.name });
    const pageSize = orRefuse(parsePageSize(request.pageSize));
    const filter = toFilter(request);
    const listing = { call: 'ListAuditEvents', ...organization, ...filter };
    const place = orRefuse(parsePageToken(request.pageToken, listing));
    if (!isVisible) return { events: [], nextPageToken: '', headSequence: 0n, headHash: GENESIS_HASH };

    const after = Math.max(filter.afterSequence, place?.sequence ?? 0);
    const query = toQuery(filter, after, pageSize + 1);
    const { events, head } = await store.listEvents(organization, query, call.deadline);
    const { messages, goOnAfter } = fillPage(events, pageSize, ({ sequence, cloudEvent }) => ({
      message: { sequence: BigInt(sequence), cloudEvent },
      bytes: Buffer.byteLength(cloudEvent),
    }));
    const at = place?.at ?? clock.now();
    return {
      events: messages,
      nextPageToken: goOnAfter ? toPageToken({ sequence: goOnAfter.sequence, at }, listing) : '',
      headSequence: BigInt(head.sequence),
      headHash: head.hash,
    };
  };
}

interface Filter {
  /** Absent: of any key, and of none. */
  readonly keyId?: string;
  /** Absent: all. Empty: none that exists was asked for. */
  readonly types?: readonly EventType[];
  readonly afterSequence: number;
}

function toFilter({ keyId, types, afterSequence }: ListAuditEventsRequest): Filter {
  return {
    ...(keyId !== '' && { keyId }),
    ...(types.length > 0 && { types: EVENT_TYPES.filter((type) => types.includes(type)) }),
    afterSequence: afterSequence < PAST_THE_END ? Number(afterSequence) : PAST_THE_END,
  };
}

// No sequence gets there: counting so far takes longer than there has been time.
const PAST_THE_END = Number.MAX_SAFE_INTEGER;

/** What can match nothing is asked for past the end: the answer still tells the head. */
function toQuery({ keyId, types }: Filter, after: number, limit: number): EventQuery {
  const matchesNothing = types?.length === 0 || (keyId !== undefined && !isKeyId(keyId));
  return {
    ...(keyId !== undefined && !matchesNothing && { keyId }),
    types: types ?? [],
    afterSequence: matchesNothing ? PAST_THE_END : after,
    limit,
  };
}
