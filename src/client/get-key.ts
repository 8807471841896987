import { KeyServiceService } from '../gen/keyreeve/v1/key_service.js';
import type { Calls } from './calls.js';
import type { InOrganization } from './change.js';
import type { Deadline } from './deadline.js';
import { given } from './fault.js';
import { type Key, type KeySelector, toKey, toSelectorMessage } from './key.js';
import type { Answer } from './refusal.js';

export interface GetKey extends InOrganization {
  readonly selector: KeySelector;
}

export async function getKey(calls: Calls, ask: GetKey, deadline: Deadline): Promise<Answer<{ readonly key: Key }>> {
  const { keyspace, organizationId, selector } = ask;
  const request = { keyspace, organizationId, selector: toSelectorMessage(selector) };
  const got = await calls.read(KeyServiceService.getKey, request, deadline);
  return got.ok ? { ok: true, key: toKey(given(got.response.key)) } : got;
}
