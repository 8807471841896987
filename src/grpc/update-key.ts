import { Key as KeyMessage } from '../gen/keyreeve/v1/key.js';
import type { UpdateKeyRequest, UpdateKeyResponse } from '../gen/keyreeve/v1/key_service.js';
import type { Load } from '../keys/change.js';
import { nameFor } from '../keys/new-key.js';
import { parseLabels, parseName, parseScopes } from '../keys/fields.js';
import { newEventId } from '../keys/ids.js';
import type { Keyspace } from '../keys/keyspace.js';
import { isRefusal } from '../keys/refusal.js';
import { canTakeAway, type UpdateKey, updateKey, type UpdateKeyDraw } from '../keys/update-key.js';
import { orRefuse } from './errors.js';
import { parseTimestamp } from './expiration.js';
import { toKeyMessage } from './messages.js';
import { commit, enforce, openChange, toLoad } from './mutation.js';
import type { Parts } from './parts.js';
import { parseSelector } from './selector.js';
import type { Unary } from './unary.js';
import { parseUpdateMask } from './update-mask.js';

export function handleUpdateKey(parts: Parts): Unary<UpdateKeyRequest, UpdateKeyResponse> {
  const { keyspaces, clock } = parts;
  return async (request, call) => {
    const { keyspace, ask } = openChange('UpdateKey', request, call, keyspaces, parseFields);
    const draw: UpdateKeyDraw = { now: clock.now(), eventId: newEventId() };

    const load = loadFor(ask, keyspace);
    const key = orRefuse(await commit(load, (state) => updateKey(state, ask, keyspace, draw), call, parts));
    call.note({ key_id: key.keyId });
    const enforcement = await enforce(canTakeAway(ask), keyspace, call, parts);
    return { key: toKeyMessage(key, clock.now()), enforcement };
  };
}

const MASK = ['name', 'labels', 'scopes', 'expire_time', 'disabled'] as const;

/** The fields that the mask names, in normal form. */
function parseFields({ selector, key = KeyMessage.fromPartial({}), updateMask, etag }: UpdateKeyRequest) {
  const parsedSelector = orRefuse(parseSelector(selector));
  const mask = orRefuse(parseUpdateMask(updateMask, MASK));
  const { name, labels, scopes, expireTime, disabled } = key;
  return {
    selector: parsedSelector,
    etag,
    ...(mask.has('name') && { name: orRefuse(parseName(name, 'key.name')) }),
    ...(mask.has('labels') && { labels: Object.fromEntries(orRefuse(parseLabels(labels, 'key.labels'))) }),
    ...(mask.has('scopes') && { scopes: orRefuse(parseScopes(scopes, 'key.scopes')) }),
    ...(mask.has('expire_time') && {
      expireTime: expireTime ? orRefuse(parseTimestamp(expireTime, 'key.expire_time')) : null,
    }),
    ...(mask.has('disabled') && { disabled }),
  };
}

function loadFor({ mutation, selector, name }: UpdateKey, keyspace: Keyspace): Load {
  const wanted = name === undefined ? undefined : nameFor(name, keyspace);
  // Where there is no name to ask for, the rule says so: a repeat comes before.
  const asksForName = keyspace.names.unique && wanted !== undefined && !isRefusal(wanted);
  return { ...toLoad(mutation), selector, ...(asksForName && { name: wanted }) };
}
