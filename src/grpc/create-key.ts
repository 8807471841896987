import type { CreateKeyRequest, CreateKeyResponse } from '../gen/keyreeve/v1/key_service.js';
import { newCredential } from '../keys/credential.js';
import { type CreateKeyDraw, createKey } from '../keys/create-key.js';
import { parseLabels, parseName, parseScopes } from '../keys/fields.js';
import { newEventId, newKeyId } from '../keys/ids.js';
import type { Keyspace } from '../keys/keyspace.js';
import { nameFor } from '../keys/new-key.js';
import { isRefusal } from '../keys/refusal.js';
import { orRefuse, Refused } from './errors.js';
import { parseExpiration } from './expiration.js';
import { toCredentialMessage, toKeyMessage } from './messages.js';
import { commit, openChange, toLoad } from './mutation.js';
import type { Parts } from './parts.js';
import type { Unary } from './unary.js';

export function handleCreateKey(parts: Parts): Unary<CreateKeyRequest, CreateKeyResponse> {
  const { store, keyspaces, clock } = parts;
  return async (request, call) => {
    const { keyspace, organization, ask } = openChange('CreateKey', request, call, keyspaces, parseFields);
    const name = nameFor(ask.name, keyspace);
    // Where there is no name to ask for, the rule says so: a repeat comes before.
    const load = { ...toLoad(ask.mutation), ...(keyspace.names.unique && !isRefusal(name) && { name }) };
    const draw = drawFor(keyspace, parts);

    const created = await commit(load, (state) => createKey(state, ask, keyspace, draw), call, parts);
    if (isRefusal(created) && created.refused === 'KEY_LIMIT_REACHED') {
      // Helpful, and no more: the refusal stands where the store cannot count.
      const expired = await store.countExpired(organization, draw.now, call.deadline).catch(() => undefined);
      throw new Refused({ ...created, ...(expired !== undefined && { expired }) });
    }
    const { key, replayed } = orRefuse(created);
    call.note({ key_id: key.keyId });
    return {
      key: toKeyMessage(key, clock.now()),
      credential: replayed ? undefined : toCredentialMessage(draw.credential),
      replayed,
    };
  };
}

/** The fields in normal form. What a keyspace makes of them is for the rule to say. */
function parseFields(request: CreateKeyRequest) {
  return {
    name: orRefuse(parseName(request.name)),
    type: request.type,
    expiration: orRefuse(parseExpiration(request.expiration)),
    scopes: orRefuse(parseScopes(request.scopes)),
    labels: Object.fromEntries(orRefuse(parseLabels(request.labels))),
  };
}

function drawFor(
  keyspace: Keyspace,
  { clock, random, peppers }: Pick<Parts, 'clock' | 'random' | 'peppers'>,
): CreateKeyDraw {
  return {
    now: clock.now(),
    keyId: newKeyId(),
    eventId: newEventId(),
    credential: newCredential(keyspace.credential, peppers, random),
  };
}
