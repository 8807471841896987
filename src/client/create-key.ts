import { createHash } from 'node:crypto';

import type { CreateKeyRequest, RotateKeyRequest } from '../gen/keyreeve/v1/key_service.js';
import { KeyServiceService } from '../gen/keyreeve/v1/key_service.js';
import type { Calls } from './calls.js';
import { type Change, toChangeFields } from './change.js';
import { type Credential, toCredential } from './credential.js';
import type { Deadline } from './deadline.js';
import { given } from './fault.js';
import { type Expiration, type Key, toExpirationMessage, toKey } from './key.js';
import type { Answer } from './refusal.js';

export type CreateKey = Change &
  Expiration & {
    readonly name?: string | undefined;
    readonly type?: string | undefined;
    readonly scopes?: readonly string[] | undefined;
    readonly labels?: Readonly<Record<string, string>> | undefined;
  };

export interface CreatedKey {
  readonly key: Key;
  /** Told this once. */
  readonly credential: Credential;
  /**
   * The first answer had got lost, and its credential with it: that key was ended, and this is its successor, with another
   * `keyId` and the same `lineageId`.
   */
  readonly recovered: boolean;
}

export async function createKey(calls: Calls, ask: CreateKey, deadline: Deadline): Promise<Answer<CreatedKey>> {
  const fields = toChangeFields(ask);
  const { name = '', type = '', scopes = [], labels = {} } = ask;
  const request: CreateKeyRequest = {
    ...fields,
    name,
    type,
    expiration: toExpirationMessage(ask),
    scopes: [...scopes],
    labels: new Map(Object.entries(labels)),
  };
  const created = await calls.change(KeyServiceService.createKey, request, deadline);
  if (!created.ok) return created;
  const { replayed, key, credential } = created.response;
  if (replayed) return recover(calls, fields, given(key).keyId, deadline);
  return { ok: true, key: toKey(given(key)), credential: disclosed(credential), recovered: false };
}

/**
 * Rotates the key whose credential nobody got, with overlap 0. An answer to that can get lost as well: its successor is
 * then rotated in turn. The ids of these requests follow from the create's, so that who repeats that one after a crash
 * comes to the same successors, and makes none beside them.
 */
async function recover(
  calls: Calls,
  { requestId, ...fields }: ReturnType<typeof toChangeFields>,
  lostKeyId: string,
  deadline: Deadline,
): Promise<Answer<CreatedKey>> {
  const digest = createHash('sha256').update(requestId).digest('hex');
  for (let keyId = lostKeyId, round = 1; ; round += 1) {
    const request: RotateKeyRequest = {
      ...fields,
      requestId: `recover-${digest}-${round}`,
      selector: { selector: { $case: 'keyId', value: keyId } },
      overlap: { seconds: 0n, nanos: 0 },
      expiration: undefined,
    };
    const rotated = await calls.change(KeyServiceService.rotateKey, request, deadline, requestId);
    if (!rotated.ok) return rotated;
    const { replayed, key, credential } = rotated.response;
    if (!replayed) return { ok: true, key: toKey(given(key)), credential: disclosed(credential), recovered: true };
    keyId = given(key).keyId;
  }
}

function disclosed(credential: Parameters<typeof toCredential>[0] | undefined): Credential {
  return given(credential && toCredential(credential));
}
