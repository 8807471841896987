/** The keys that are verified, and the credentials of none. */
import { ActorType } from '../../src/gen/keyreeve/v1/actor.js';
import type { Credential } from '../../src/gen/keyreeve/v1/credential.js';
import {
  BatchVerifyKeysRequest,
  CreateKeyRequest,
  type CreateKeyResponse,
  type KeyServiceClient,
  RevokeKeyRequest,
  type RevokeKeyResponse,
  VerifyKeyRequest,
} from '../../src/gen/keyreeve/v1/key_service.js';
import { randomBase62, systemRandom } from '../../src/keys/base62.js';
import { sourceOf } from '../../src/keys/chain.js';
import type { OrganizationState } from '../../src/keys/change.js';
import { Deadline, systemClock } from '../../src/keys/clock.js';
import { newCredential } from '../../src/keys/credential.js';
import type { Mutation } from '../../src/keys/event.js';
import { newKeyId } from '../../src/keys/ids.js';
import { newKey } from '../../src/keys/new-key.js';
import { call } from '../support/call.js';
import { aKeyspace } from '../support/domain.js';
import { openStoreAt, type StorePlace } from '../support/open-store.js';
import { toFrame } from '../support/raw-grpc.js';

const FORM = { kind: 'bearer', prefix: 'hrdly_', bodyLength: 49, display: 'first_four' } as const;
const KEYSPACE = aKeyspace({ name: 'hygiara', credential: FORM });
// As a service names it that is told nothing else.
const SOURCE = sourceOf('local');
const SEED_MS_MAX = 30_000;
const ACTOR = { type: ActorType.USER, id: 'ada', permissions: [] };
const KEYS_PER_ORGANIZATION = 500;

/** Of each key alike: what a team's key has. */
const KEY = { name: 'CI pipeline', scopes: ['orders.read', 'orders.write'] };
const SEEDED = {
  ...KEY,
  type: '',
  labels: { team: 'payments' },
  standing: { kind: 'usable' },
  expireTime: new Date('2100-01-01T00:00:00Z'),
} as const;

/**
 * Puts keys into a store that no service has open: many at once and without events, which a service would publish.
 * @returns the token of each
 */
export async function seedKeys(place: StorePlace, count: number): Promise<string[]> {
  await using store = await openStoreAt(place, SOURCE);
  const tokens: string[] = [];
  while (tokens.length < count) {
    const credentials = Array.from({ length: KEYS_PER_ORGANIZATION }, () => newCredential(FORM, [], systemRandom));
    const organization = { keyspace: KEYSPACE.name, organizationId: `acme-${tokens.length}` };
    const mutation: Mutation = { organization, caller: 'local', actor: { type: 'USER', id: ACTOR.id } };
    const createTime = new Date();
    const rule = (state: OrganizationState) => {
      const put = credentials.map((credential, at) => {
        const key = newKey({ ...SEEDED, mutation, keyId: newKeyId(), credential, createTime }, state, KEYSPACE);
        return { after: { ...key, sequence: key.sequence + at } };
      });
      return { answer: undefined, widens: true, put, events: [] };
    };
    const refused = await store.change({ organization }, rule, Deadline.after(SEED_MS_MAX, systemClock));
    if (refused) throw new Error(`keys were not put into the store: ${refused.refused}`);
    tokens.push(...credentials.map(({ secret }) => secret.reveal()));
  }
  return tokens;
}

export interface CreatedKey {
  readonly keyId: string;
  readonly organizationId: string;
  readonly token: string;
}

export async function createKey(keys: KeyServiceClient, organizationId: string): Promise<CreatedKey> {
  const request = CreateKeyRequest.fromPartial({ keyspace: KEYSPACE.name, organizationId, actor: ACTOR, ...KEY });
  const { key, credential } = await call<CreateKeyResponse>((done) => keys.createKey(request, done));
  if (!key || credential?.kind?.$case !== 'bearerToken') throw new Error('a key was not created');
  return { keyId: key.keyId, organizationId, token: credential.kind.value };
}

/** Answers whether the revocation is in force everywhere. */
export async function revokeKey(keys: KeyServiceClient, { keyId, organizationId }: CreatedKey): Promise<boolean> {
  const request = RevokeKeyRequest.fromPartial({
    keyspace: KEYSPACE.name,
    organizationId,
    actor: ACTOR,
    selector: { selector: { $case: 'keyId', value: keyId } },
  });
  const { enforcement } = await call<RevokeKeyResponse>((done) => keys.revokeKey(request, done));
  return enforcement?.complete === true;
}

/** Well-formed, and with overwhelming probability of no key. */
export function newToken(): string {
  return newCredential(FORM, [], systemRandom).secret.reveal();
}

/** Of another length than any token has. */
export function malformedToken(): string {
  return FORM.prefix + randomBase62(FORM.bodyLength - 1, systemRandom);
}

/** As it goes over the wire, its length before it. */
export function verifyFrame(token: string): Buffer {
  return toFrame(VerifyKeyRequest.encode(toVerifyRequest(token)).finish());
}

export function batchFrame(tokens: readonly string[]): Buffer {
  const requests = tokens.map(toVerifyRequest);
  return toFrame(BatchVerifyKeysRequest.encode(BatchVerifyKeysRequest.fromPartial({ requests })).finish());
}

export function toVerifyRequest(token: string): VerifyKeyRequest {
  return VerifyKeyRequest.fromPartial({ credential: bearer(token) });
}

function bearer(token: string): Credential {
  return { kind: { $case: 'bearerToken', value: token } };
}
