import { KeyState } from '../gen/keyreeve/v1/key.js';
import { KeyServiceService, type ListKeysRequest } from '../gen/keyreeve/v1/key_service.js';
import type { Calls } from './calls.js';
import type { InOrganization } from './change.js';
import type { Deadline } from './deadline.js';
import { type Key, toKey } from './key.js';
import type { Named } from './names.js';
import type { Answer } from './refusal.js';

export interface ListKeys extends InOrganization {
  /** Only keys of these types. Absent or empty: all. */
  readonly types?: readonly string[] | undefined;
  /** Only keys in these states. Absent or empty: all but `REVOKED`. */
  readonly states?: readonly Exclude<Named<typeof KeyState>, 'UNRECOGNIZED'>[] | undefined;
  /** At most 500. Absent: 50. */
  readonly pageSize?: number | undefined;
  /** The `nextPageToken` of the page before. Absent or empty: the first page. */
  readonly pageToken?: string | undefined;
}

export interface ListedKeys {
  /** Newest first. */
  readonly keys: readonly Key[];
  /** Empty: this is the last page. */
  readonly nextPageToken: string;
}

export async function listKeys(calls: Calls, ask: ListKeys, deadline: Deadline): Promise<Answer<ListedKeys>> {
  const { keyspace, organizationId, types = [], states = [], pageSize = 0, pageToken = '' } = ask;
  const request: ListKeysRequest = {
    keyspace,
    organizationId,
    types: [...types],
    states: states.map((state) => KeyState[state]),
    pageSize,
    pageToken,
  };
  const listed = await calls.read(KeyServiceService.listKeys, request, deadline);
  if (!listed.ok) return listed;
  const { keys, nextPageToken } = listed.response;
  return { ok: true, keys: keys.map(toKey), nextPageToken };
}
