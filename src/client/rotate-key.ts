import { KeyServiceService, type RotateKeyRequest } from '../gen/keyreeve/v1/key_service.js';
import type { Calls } from './calls.js';
import { type Change, toChangeFields } from './change.js';
import { type Credential, toCredential } from './credential.js';
import type { Deadline } from './deadline.js';
import { given } from './fault.js';
import {
  type Enforcement,
  type Expiration,
  type Key,
  type KeySelector,
  toEnforcement,
  toExpirationMessage,
  toKey,
  toSelectorMessage,
} from './key.js';
import type { Answer } from './refusal.js';
import { toDuration } from './times.js';

/** `ttlMs` and `expireTime` are the new key's; absent: as the old key's. */
export type RotateKey = Change &
  Expiration & {
    readonly selector: KeySelector;
    /** How long the old key still works; 0: it ends at once. Absent: until it is revoked, or as the keyspace has it. */
    readonly overlapMs?: number | undefined;
  };

export interface RotatedKey {
  /** The new key. */
  readonly key: Key;
  /** The new key's, told this once. Absent where `replayed`. */
  readonly credential?: Credential;
  readonly previousKey: Key;
  readonly enforcement: Enforcement;
  /** The key had been rotated under this request id, and the credential was told with the first answer. */
  readonly replayed: boolean;
}

export async function rotateKey(calls: Calls, ask: RotateKey, deadline: Deadline): Promise<Answer<RotatedKey>> {
  const request: RotateKeyRequest = {
    ...toChangeFields(ask),
    selector: toSelectorMessage(ask.selector),
    overlap: ask.overlapMs === undefined ? undefined : toDuration(ask.overlapMs),
    expiration: toExpirationMessage(ask),
  };
  const rotated = await calls.change(KeyServiceService.rotateKey, request, deadline);
  if (!rotated.ok) return rotated;
  const { key, credential, previousKey, enforcement, replayed } = rotated.response;
  const disclosed = credential && toCredential(credential);
  return {
    ok: true,
    key: toKey(given(key)),
    ...(disclosed !== undefined && { credential: disclosed }),
    previousKey: toKey(given(previousKey)),
    enforcement: toEnforcement(given(enforcement)),
    replayed,
  };
}
