import { RevocationReason } from '../gen/keyreeve/v1/key.js';
import { KeyServiceService, type RevokeKeyRequest } from '../gen/keyreeve/v1/key_service.js';
import type { Calls } from './calls.js';
import { type Change, toChangeFields } from './change.js';
import type { Deadline } from './deadline.js';
import { given } from './fault.js';
import { type Enforcement, type Key, type KeySelector, toEnforcement, toKey, toSelectorMessage } from './key.js';
import type { Named } from './names.js';
import type { Answer } from './refusal.js';

export interface RevokeKey extends Change {
  /** A name takes the whole lineage, an id one key. */
  readonly selector: KeySelector;
  /** Absent: `OTHER`. */
  readonly reason?: Exclude<Named<typeof RevocationReason>, 'UNRECOGNIZED'> | undefined;
  /** In the revoker's own words. */
  readonly reasonDetail?: string | undefined;
}

export interface RevokedKey {
  readonly key: Key;
  /** An older one of the lineage, where it ended too. */
  readonly previousKey?: Key;
  readonly enforcement: Enforcement;
}

export async function revokeKey(calls: Calls, ask: RevokeKey, deadline: Deadline): Promise<Answer<RevokedKey>> {
  const request: RevokeKeyRequest = {
    ...toChangeFields(ask),
    selector: toSelectorMessage(ask.selector),
    reason: RevocationReason[ask.reason ?? 'OTHER'],
    reasonDetail: ask.reasonDetail ?? '',
  };
  const revoked = await calls.change(KeyServiceService.revokeKey, request, deadline);
  if (!revoked.ok) return revoked;
  const { key, previousKey, enforcement } = revoked.response;
  return {
    ok: true,
    key: toKey(given(key)),
    ...(previousKey && { previousKey: toKey(previousKey) }),
    enforcement: toEnforcement(given(enforcement)),
  };
}
