/** Keys for tests at a gateway, which ask for nothing but one that is good. */
import { randomUUID } from 'node:crypto';
import { Metadata } from '@grpc/grpc-js';

import { type Actor, ActorType } from '../../src/gen/keyreeve/v1/actor.js';
import { type Key, RevocationReason } from '../../src/gen/keyreeve/v1/key.js';
import { CreateKeyRequest, type CreateKeyResponse, RevokeKeyRequest } from '../../src/gen/keyreeve/v1/key_service.js';
import { call } from './call.js';
import { secretOf } from './product.js';
import type { Service } from './service.js';

const ADA: Actor = { type: ActorType.USER, id: 'ada', permissions: ['admin', 'api_keys.manage'] };

export interface IssuedKey {
  readonly key: Key;
  /** The bearer token, or in pair form the secret. */
  readonly secret: string;
}

/** A key of the organization `acme` with a name of its own, unless fields say otherwise. */
export async function issue(
  { keys }: Pick<Service, 'keys'>,
  keyspace: string,
  fields: Partial<CreateKeyRequest> = {},
  metadata = new Metadata(),
): Promise<IssuedKey> {
  const own = { keyspace, organizationId: 'acme', actor: ADA, name: `ci ${randomUUID()}` };
  const request = CreateKeyRequest.fromPartial({ ...own, ...fields });
  const { key, credential } = await call<CreateKeyResponse>((done) => keys.createKey(request, metadata, done));
  if (!key || !credential) throw new Error('a create was answered without key or credential');
  return { key, secret: secretOf(credential) };
}

export async function revoke({ keys }: Pick<Service, 'keys'>, key: Key): Promise<void> {
  const request = RevokeKeyRequest.fromPartial({
    keyspace: key.keyspace,
    organizationId: key.organizationId,
    actor: ADA,
    selector: { selector: { $case: 'keyId', value: key.keyId } },
    reason: RevocationReason.UNUSED,
  });
  await call((done) => keys.revokeKey(request, done));
}
