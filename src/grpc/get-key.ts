import type { GetKeyRequest, GetKeyResponse } from '../gen/keyreeve/v1/key_service.js';
import { selectKey } from '../keys/select-key.js';
import { toTenant } from './callers.js';
import { orRefuse, Refused } from './errors.js';
import { toKeyMessage } from './messages.js';
import type { Parts } from './parts.js';
import { parseSelector } from './selector.js';
import type { Unary } from './unary.js';

export function handleGetKey({ store, keyspaces, clock }: Parts): Unary<GetKeyRequest, GetKeyResponse> {
  return async (request, call) => {
    const { keyspace, organization, isVisible } = toTenant(request, call.caller, keyspaces);
    call.note({ keyspace: keyspace.name });
    const selector = orRefuse(parseSelector(request.selector));
    if (!isVisible) throw new Refused({ refused: 'KEY_NOT_FOUND' });
    const key = orRefuse(selectKey(await store.selectKeys(organization, selector, call.deadline), selector));
    call.note({ key_id: key.keyId });
    return { key: toKeyMessage(key, clock.now()) };
  };
}
