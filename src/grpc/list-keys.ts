import { Key as KeyMessage, KeyState as KeyStateMessage } from '../gen/keyreeve/v1/key.js';
import type { ListKeysRequest, ListKeysResponse } from '../gen/keyreeve/v1/key_service.js';
import { KEY_STATES, type KeyState } from '../keys/key.js';
import type { Keyspace } from '../keys/keyspace.js';
import { toTenant } from './callers.js';
import { orRefuse } from './errors.js';
import { toKeyMessage } from './messages.js';
import { parsePageToken, toPageToken } from './page-token.js';
import { fillPage, parsePageSize } from './paging.js';
import type { Parts } from './parts.js';
import type { Unary } from './unary.js';

export function handleListKeys({ store, keyspaces, clock }: Parts): Unary<ListKeysRequest, ListKeysResponse> {
  return async (request, call) => {
    const { keyspace, organization, isVisible } = toTenant(request, call.caller, keyspaces);
    call.note({ keyspace: keyspace.name });
    const pageSize = orRefuse(parsePageSize(request.pageSize));
    const filter = toFilter(request, keyspace);
    const listing = { call: 'ListKeys', ...organization, ...filter };
    const place = orRefuse(parsePageToken(request.pageToken, listing));
    if (!isVisible || filter.types?.length === 0 || filter.states.length === 0) return { keys: [], nextPageToken: '' };

    const now = clock.now();
    const at = place?.at ?? now;
    const query = {
      types: filter.types ?? [],
      states: filter.states,
      at,
      ...(place && { beforeSequence: place.sequence }),
      limit: pageSize + 1,
    };
    const rows = await store.listKeys(organization, query, call.deadline);
    const { messages, goOnAfter } = fillPage(rows, pageSize, (key) => {
      const message = toKeyMessage(key, now);
      return { message, bytes: KeyMessage.encode(message).finish().length };
    });
    const nextPageToken = goOnAfter ? toPageToken({ sequence: goOnAfter.sequence, at }, listing) : '';
    return { keys: messages, nextPageToken };
  };
}

interface Filter {
  /** Absent: all. Empty: none that exists was asked for. */
  readonly types?: readonly string[];
  /** Empty: none that exists was asked for. */
  readonly states: readonly KeyState[];
}

/** Sorted, each once, and without what can match nothing: a type that is not declared, a state that is not known. */
function toFilter({ types, states }: ListKeysRequest, { types: { allowed } }: Keyspace): Filter {
  const wanted = new Set(types);
  return {
    ...(types.length > 0 && { types: allowed.filter((type) => wanted.has(type)).sort() }),
    states: KEY_STATES.filter((state) =>
      states.length === 0 ? state !== 'REVOKED' : states.includes(KeyStateMessage[state]),
    ),
  };
}
