/**
 * The ground of the acceptance suites: the service as built, with the keyspaces file that the repository ships, on both
 * stacks, and its calls as a product's own services make them; before the product's own API a real Envoy, configured as
 * the example that the repository ships. Nothing here looks behind the API.
 */
import { createHash, randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { credentials, Metadata } from '@grpc/grpc-js';
import { afterAll, beforeAll, describe, expect, inject } from 'vitest';

import { type Actor, ActorType } from '../../src/gen/keyreeve/v1/actor.js';
import { ListAuditEventsRequest, type ListAuditEventsResponse } from '../../src/gen/keyreeve/v1/audit_service.js';
import type { Credential } from '../../src/gen/keyreeve/v1/credential.js';
import { Key, type KeySelector, RevocationReason } from '../../src/gen/keyreeve/v1/key.js';
import {
  CreateKeyRequest,
  type CreateKeyResponse,
  GetKeyRequest,
  type GetKeyResponse,
  ImportKeysItem,
  ImportKeysRequest,
  type ImportKeysResponse,
  ListKeysRequest,
  type ListKeysResponse,
  RevokeKeyRequest,
  type RevokeKeyResponse,
  RotateKeyRequest,
  type RotateKeyResponse,
  UpdateKeyRequest,
  type UpdateKeyResponse,
  VerifyKeyRequest,
  type VerifyKeyResponse,
} from '../../src/gen/keyreeve/v1/key_service.js';
import {
  OrganizationServiceClient,
  UpdateOrganizationRequest,
  type UpdateOrganizationResponse,
} from '../../src/gen/keyreeve/v1/organization_service.js';
import type { Decision } from '../../src/gen/keyreeve/v1/verification.js';
import type { Timestamp } from '../../src/gen/google/protobuf/timestamp.js';
import { systemRandom } from '../../src/keys/base62.js';
import { newCredential } from '../../src/keys/credential.js';
import { call } from './call.js';
import { startEnvoy } from './envoy.js';
import type { Gateway, HttpResponse } from './gateway.js';
import { toldBy } from './grpc-server.js';
import { inOwnDatabase } from './mongodb-store.js';
import { type Service, type ServiceSettings, startService } from './service.js';

const stacks: { stack: string; settings: () => ServiceSettings }[] = [
  { stack: 'SQLite and a file', settings: () => ({}) },
  {
    stack: 'MongoDB and Kafka',
    settings: () => ({
      KEYREEVE_MONGODB_URI: inOwnDatabase(inject('mongodbUri')),
      KEYREEVE_KAFKA_BROKERS: inject('kafkaBrokers').join(','),
      KEYREEVE_AUDIT_TOPIC: `acceptance.${randomUUID()}`,
      KEYREEVE_KAFKA_ALLOW_SINGLE_BROKER: 'true',
    }),
  },
];

/**
 * Describes a product on each stack. Its tests, named by the sentences that they show, share one service and take turns.
 * @param stacksAtOnce for a suite that mostly waits. `expect.poll` does not work there: it needs the one test that runs
 */
export function describeProduct(
  keyspace: string,
  actor: Actor,
  sentences: (product: Product) => void,
  { stacksAtOnce = false } = {},
): void {
  describe.each(stacks)(`${keyspace} on $stack`, { concurrent: stacksAtOnce }, ({ settings }) => {
    const product = new Product(keyspace, actor);
    beforeAll(async () => product.begin(await startService(settings())));
    afterAll(() => product.end());
    describe('in turn', { concurrent: false }, () => {
      sentences(product);
    });
  });
}

export const aUser = (id: string, ...permissions: string[]): Actor => ({ type: ActorType.USER, id, permissions });

/** An issued key and what its client keeps. */
export interface Issued {
  readonly key: Key;
  readonly credential: Credential;
}

type Fields<Request> = Partial<Omit<Request, 'keyspace' | 'organizationId'>>;

export class Product {
  readonly #keyspace: string;
  readonly #actor: Actor;
  #service: Service | undefined;
  #organizations: OrganizationServiceClient | undefined;
  #envoy: Promise<Gateway> | undefined;

  constructor(keyspace: string, actor: Actor) {
    this.#keyspace = keyspace;
    this.#actor = actor;
  }

  begin(service: Service): void {
    this.#service = service;
    this.#organizations = new OrganizationServiceClient(service.address, credentials.createInsecure());
  }

  async end(): Promise<void> {
    await (await this.#envoy)?.[Symbol.asyncDispose]();
    this.#organizations?.close();
    await this.#service?.[Symbol.asyncDispose]();
  }

  /** One that no other test uses. */
  newOrganization(): Organization {
    const { keys, audit } = this.#running();
    if (!this.#organizations) throw new Error('the product has not begun');
    const ref = { keyspace: this.#keyspace, organizationId: `org-${randomUUID()}` };
    return new Organization({ keys, audit, organizations: this.#organizations }, ref, this.#actor);
  }

  /** As a gateway asks: by credential and keyspace alone. */
  async verify(credential: Credential | undefined, fields: Partial<VerifyKeyRequest> = {}): Promise<VerifyKeyResponse> {
    const request = VerifyKeyRequest.fromPartial({ keyspace: this.#keyspace, credential, ...fields });
    return call<VerifyKeyResponse>((done) => this.#running().keys.verifyKey(request, new Metadata(), soon(), done));
  }

  async decisionOn(credential: Credential | undefined): Promise<Decision> {
    return (await this.verify(credential)).decision;
  }

  /** Starts the gateway, as the first `get` does: for a test that has no time for it later. */
  async openGateway(): Promise<void> {
    await this.#gateway();
  }

  /** As a client asks the product's own API. @param lines the request's headers */
  async get(lines: readonly string[], path?: string): Promise<HttpResponse> {
    return (await this.#gateway()).get(this.#keyspace, lines, path);
  }

  #gateway(): Promise<Gateway> {
    return (this.#envoy ??= startEnvoy(this.#running().address));
  }

  #running(): Service {
    if (!this.#service) throw new Error('the product has not begun');
    return this.#service;
  }
}

interface Clients {
  readonly keys: Service['keys'];
  readonly audit: Service['audit'];
  readonly organizations: OrganizationServiceClient;
}

export class Organization {
  readonly ref: { readonly keyspace: string; readonly organizationId: string };
  readonly #clients: Clients;
  readonly #actor: Actor;

  constructor(clients: Clients, ref: Organization['ref'], actor: Actor) {
    this.#clients = clients;
    this.ref = ref;
    this.#actor = actor;
  }

  async create(fields: Fields<CreateKeyRequest> = {}): Promise<Issued> {
    const { key, credential } = await this.answerToCreate(fields);
    if (!key || !credential) throw new Error('a create was answered without key or credential');
    return { key, credential };
  }

  answerToCreate(fields: Fields<CreateKeyRequest> = {}): Promise<CreateKeyResponse> {
    const request = CreateKeyRequest.fromPartial({ ...this.ref, actor: this.#actor, ...fields });
    return call((done) => this.#clients.keys.createKey(request, new Metadata(), soon(), done));
  }

  async get({ keyId }: Pick<Key, 'keyId'>): Promise<Key> {
    const selector = { selector: { $case: 'keyId' as const, value: keyId } };
    const request = GetKeyRequest.fromPartial({ ...this.ref, selector });
    const { key } = await call<GetKeyResponse>((done) =>
      this.#clients.keys.getKey(request, new Metadata(), soon(), done),
    );
    if (!key) throw new Error('a get was answered without a key');
    return key;
  }

  /** All pages, with what the service lists by default. */
  async list(fields: Fields<ListKeysRequest> = {}): Promise<Key[]> {
    const keys: Key[] = [];
    let pageToken = '';
    do {
      const request = ListKeysRequest.fromPartial({ ...this.ref, ...fields, pageToken });
      const page = await call<ListKeysResponse>((done) =>
        this.#clients.keys.listKeys(request, new Metadata(), soon(), done),
      );
      keys.push(...page.keys);
      pageToken = page.nextPageToken;
    } while (pageToken !== '');
    return keys;
  }

  revoke(
    selector: NonNullable<KeySelector['selector']>,
    fields: Fields<RevokeKeyRequest> = {},
  ): Promise<RevokeKeyResponse> {
    const request = RevokeKeyRequest.fromPartial({
      ...this.ref,
      actor: this.#actor,
      selector: { selector },
      reason: RevocationReason.UNUSED,
      ...fields,
    });
    return call((done) => this.#clients.keys.revokeKey(request, new Metadata(), soon(), done));
  }

  revokeById({ keyId }: Key, fields: Fields<RevokeKeyRequest> = {}): Promise<RevokeKeyResponse> {
    return this.revoke({ $case: 'keyId', value: keyId }, fields);
  }

  async rotate({ keyId }: Key, fields: Fields<RotateKeyRequest> = {}): Promise<Issued & { previousKey?: Key }> {
    const request = RotateKeyRequest.fromPartial({
      ...this.ref,
      actor: this.#actor,
      selector: { selector: { $case: 'keyId', value: keyId } },
      ...fields,
    });
    const { key, credential, previousKey } = await call<RotateKeyResponse>((done) =>
      this.#clients.keys.rotateKey(request, new Metadata(), soon(), done),
    );
    if (!key || !credential) throw new Error('a rotation was answered without key or credential');
    return { key, credential, ...(previousKey && { previousKey }) };
  }

  update(selector: NonNullable<KeySelector['selector']>, fields: Fields<UpdateKeyRequest>): Promise<UpdateKeyResponse> {
    const request = UpdateKeyRequest.fromPartial({
      ...this.ref,
      actor: this.#actor,
      selector: { selector },
      ...fields,
    });
    return call((done) => this.#clients.keys.updateKey(request, new Metadata(), soon(), done));
  }

  import(keys: ImportKeysRequest['keys'], fields: Fields<ImportKeysRequest> = {}): Promise<ImportKeysResponse> {
    const request = ImportKeysRequest.fromPartial({ ...this.ref, actor: this.#actor, keys, ...fields });
    return call((done) => this.#clients.keys.importKeys(request, new Metadata(), soon(), done));
  }

  setPlan(plan: string, fields: Fields<UpdateOrganizationRequest> = {}): Promise<UpdateOrganizationResponse> {
    return this.#set({ plan }, fields);
  }

  suspend(fields: Fields<UpdateOrganizationRequest> = {}): Promise<UpdateOrganizationResponse> {
    return this.#set({ suspended: true }, fields);
  }

  #set(
    settings: { plan: string } | { suspended: boolean },
    fields: Fields<UpdateOrganizationRequest>,
  ): Promise<UpdateOrganizationResponse> {
    const request = UpdateOrganizationRequest.fromPartial({
      ...this.ref,
      actor: this.#actor,
      organization: settings,
      updateMask: Object.keys(settings),
      ...fields,
    });
    return call((done) => this.#clients.organizations.updateOrganization(request, new Metadata(), soon(), done));
  }

  /** The envelopes of the organization's events. */
  async auditLog(): Promise<Record<string, unknown>[]> {
    const request = ListAuditEventsRequest.fromPartial(this.ref);
    const { events } = await call<ListAuditEventsResponse>((done) =>
      this.#clients.audit.listAuditEvents(request, new Metadata(), soon(), done),
    );
    return events.map(({ cloudEvent }) => JSON.parse(cloudEvent) as Record<string, unknown>);
  }
}

function soon() {
  return { deadline: Date.now() + 60_000 };
}

/** The bearer token, or in pair form the secret. */
export function secretOf({ kind }: Credential): string {
  if (!kind) throw new Error('a credential without kind');
  return kind.$case === 'bearerToken' ? kind.value : kind.value.secret;
}

export const bearer = (token: string): Credential => ({ kind: { $case: 'bearerToken', value: token } });

export const sha256 = (text: string): Buffer => createHash('sha256').update(text).digest();

/** A token as the keyspace with this prefix issues them, checksum and all, which it never did. */
export function neverIssued(prefix: string, bodyLength = 49): string {
  const form = { kind: 'bearer', prefix, bodyLength, display: 'last_four' } as const;
  return newCredential(form, [], systemRandom).secret.reveal();
}

/** Since 1970; NaN where there is no time. */
export function toMs(time: Timestamp | undefined): number {
  return time ? Number(time.seconds) * 1000 + time.nanos / 1e6 : Number.NaN;
}

const REST_MS = 20;

/** Verifies time after time until it is stopped, which answers every decision that there was. */
export function keepVerifying(product: Product, credential: Credential): { stop(): Promise<Decision[]> } {
  const decisions: Decision[] = [];
  const stopped = new AbortController();
  const verifying = (async () => {
    do {
      decisions.push(await product.decisionOn(credential));
      // Else a slow change would see a whole limit used up.
      await delay(REST_MS);
    } while (!stopped.signal.aborted);
    return decisions;
  })();
  // Where a test fails before it stops this, that failure is the one to tell.
  verifying.catch(() => undefined);
  return {
    stop: () => {
      stopped.abort();
      return verifying;
    },
  };
}

/** Asserts that a request was let in, and that the upstream was told whose key it came with. */
export function expectLetIn(response: HttpResponse, { keyId, keyspace, organizationId }: Key): void {
  // Its body tells who turned it down.
  expect(response).toMatchObject({ status: 200 });
  expect(response.received?.headers).toEqual(
    expect.arrayContaining([
      ['x-keyreeve-key-id', keyId],
      ['x-keyreeve-keyspace', keyspace],
      ['x-keyreeve-organization', organizationId],
    ]),
  );
}

/** Asserts that a request got this answer, and not further. */
export function expectTurnedDown(response: HttpResponse | undefined, status: number, body: string): void {
  expect(response).toMatchObject({ status, body, headers: { 'content-type': 'application/json' } });
  expect(response?.received).toBeUndefined();
}

/** Asserts that the call is refused for this reason, under this gRPC code, such as `NOT_FOUND`. */
export async function expectRefused(answer: Promise<unknown>, reason: string, code: string): Promise<void> {
  expect(await toldBy(answer)).toMatchObject({ code, reason });
}

/** Resolves once this time, in milliseconds since 1970, has come: a timer alone may go off before. */
export async function reach(timeMs: number): Promise<void> {
  while (Date.now() < timeMs) await delay(timeMs - Date.now());
}

/** More than the four characters that a display may show. */
const PIECE_LENGTH = 8;

/** Asserts that a message holds no piece of what is behind the secret's prefix. */
export function expectWithout(message: unknown, secret: string): void {
  const text = JSON.stringify(message, (_, value: unknown) =>
    typeof value === 'bigint' ? String(value) : value instanceof Map ? [...(value as Map<string, string>)] : value,
  );
  const body = secret.slice(secret.lastIndexOf('_') + 1);
  const pieces = Array.from({ length: body.length - PIECE_LENGTH + 1 }, (_, at) => body.slice(at, at + PIECE_LENGTH));
  expect(pieces.filter((piece) => text.includes(piece))).toEqual([]);
}

/** Asserts that no call tells the secret a second time. Revokes the key. */
export async function expectNeverToldAgain(
  product: Product,
  organization: Organization,
  { key, credential }: Issued,
): Promise<void> {
  const selector = { $case: 'keyId', value: key.keyId } as const;
  const answers = [
    await product.verify(credential),
    await organization.get(key),
    await organization.list(),
    await organization.update(selector, { key: Key.create({ labels: new Map([['a', 'b']]) }), updateMask: ['labels'] }),
    await organization.revoke(selector),
    await organization.get(key),
    await organization.auditLog(),
  ];
  for (const answer of answers) expectWithout(answer, secretOf(credential));
}

/** Asserts that each call that changes something is refused to the actor, and changes nothing. */
export async function expectMayNotManage(organization: Organization, key: Key, actor: Actor): Promise<void> {
  const selector = { $case: 'keyId', value: key.keyId } as const;
  const renamed = { key: Key.create({ name: 'mine' }), updateMask: ['name'] };
  const item = ImportKeysItem.fromPartial({
    secret: { $case: 'digest', value: sha256('mine') },
    clientId: key.clientId && 'client-of-mine',
    name: 'mine',
  });
  const state = async () => ({
    keys: (await organization.list()).map(({ keyId, etag }) => ({ keyId, etag })),
    events: await organization.auditLog(),
  });
  const before = await state();
  for (const attempt of [
    () => organization.create({ name: 'mine', actor }),
    () => organization.update(selector, { ...renamed, actor }),
    () => organization.rotate(key, { actor }),
    () => organization.revoke(selector, { actor }),
    () => organization.import([item], { actor }),
    () => organization.setPlan('enterprise', { actor }),
  ]) {
    await expectRefused(attempt(), 'ACTOR_NOT_ALLOWED', 'PERMISSION_DENIED');
  }
  expect(await state()).toEqual(before);
}
