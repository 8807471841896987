import { RevocationReason as ReasonMessage } from '../gen/keyreeve/v1/key.js';
import type { RevokeKeyRequest, RevokeKeyResponse } from '../gen/keyreeve/v1/key_service.js';
import { parseText, REASON_DETAIL_LENGTH_MAX } from '../keys/fields.js';
import { newEventId } from '../keys/ids.js';
import { REVOCATION_REASONS, type RevocationReason } from '../keys/key.js';
import { revokeKey, type RevokeKeyDraw } from '../keys/revoke-key.js';
import { orRefuse } from './errors.js';
import { toKeyMessage } from './messages.js';
import { commit, enforce, openChange, toLoad } from './mutation.js';
import type { Parts } from './parts.js';
import { parseSelector } from './selector.js';
import type { Unary } from './unary.js';

export function handleRevokeKey(parts: Parts): Unary<RevokeKeyRequest, RevokeKeyResponse> {
  const { keyspaces, clock } = parts;
  return async (request, call) => {
    const { keyspace, ask } = openChange('RevokeKey', request, call, keyspaces, parseFields);
    const draw: RevokeKeyDraw = { now: clock.now(), eventIds: [newEventId(), newEventId()] };

    const { selector } = ask;
    const load = { ...toLoad(ask.mutation), selector, withLineage: selector.by === 'name' };
    const { key, previousKey } = orRefuse(await commit(load, (state) => revokeKey(state, ask, draw), call, parts));
    call.note({ key_id: key.keyId });
    const enforcement = await enforce(true, keyspace, call, parts);
    const now = clock.now();
    return {
      key: toKeyMessage(key, now),
      previousKey: previousKey && toKeyMessage(previousKey, now),
      enforcement,
    };
  };
}

function parseFields({ selector, reason, reasonDetail }: RevokeKeyRequest) {
  return {
    selector: orRefuse(parseSelector(selector)),
    reason: toReason(reason),
    reasonDetail: orRefuse(
      parseText(reasonDetail, {
        field: 'reason_detail',
        lengthMax: REASON_DETAIL_LENGTH_MAX,
        refused: 'TEXT_INVALID',
      }),
    ),
  };
}

/** A revocation never fails for its reason: none, and one that a newer client knows, count as OTHER. */
function toReason(message: ReasonMessage): RevocationReason {
  return REVOCATION_REASONS.find((reason) => ReasonMessage[reason] === message) ?? 'OTHER';
}
