import type { RotateKeyRequest, RotateKeyResponse } from '../gen/keyreeve/v1/key_service.js';
import { newCredential } from '../keys/credential.js';
import { newEventId, newKeyId } from '../keys/ids.js';
import { rotateKey, type RotateKeyDraw } from '../keys/rotate-key.js';
import { orRefuse } from './errors.js';
import { parseExpiration, parseOverlap } from './expiration.js';
import { toCredentialMessage, toKeyMessage } from './messages.js';
import { commit, enforce, openChange, toLoad } from './mutation.js';
import type { Parts } from './parts.js';
import { parseSelector } from './selector.js';
import type { Unary } from './unary.js';

export function handleRotateKey(parts: Parts): Unary<RotateKeyRequest, RotateKeyResponse> {
  const { keyspaces, clock, peppers, random } = parts;
  return async (request, call) => {
    const { keyspace, ask } = openChange('RotateKey', request, call, keyspaces, parseFields);
    const draw: RotateKeyDraw = {
      now: clock.now(),
      keyId: newKeyId(),
      eventIds: [newEventId(), newEventId()],
      credential: newCredential(keyspace.credential, peppers, random),
    };

    const load = { ...toLoad(ask.mutation), selector: ask.selector, withLineage: true };
    const { key, previousKey, replayed, takesAway } = orRefuse(
      await commit(load, (state) => rotateKey(state, ask, keyspace, draw), call, parts),
    );
    call.note({ key_id: key.keyId });
    const enforcement = await enforce(takesAway, keyspace, call, parts);
    const now = clock.now();
    return {
      key: toKeyMessage(key, now),
      credential: replayed ? undefined : toCredentialMessage(draw.credential),
      previousKey: toKeyMessage(previousKey, now),
      enforcement,
      replayed,
    };
  };
}

function parseFields({ selector, overlap, expiration }: RotateKeyRequest) {
  const parsedSelector = orRefuse(parseSelector(selector));
  const overlapMs = orRefuse(parseOverlap(overlap));
  return {
    selector: parsedSelector,
    ...(overlapMs !== undefined && { overlapMs }),
    expiration: orRefuse(parseExpiration(expiration)),
  };
}
