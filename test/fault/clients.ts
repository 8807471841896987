/** Clients that record what they ask and are told. What breaks on the way is an outcome that they do not know. */
import { createHash } from 'node:crypto';
import { credentials, Metadata, status } from '@grpc/grpc-js';

import { ActorType } from '../../src/gen/keyreeve/v1/actor.js';
import type { AuditServiceClient } from '../../src/gen/keyreeve/v1/audit_service.js';
import { ListAuditEventsRequest, type ListAuditEventsResponse } from '../../src/gen/keyreeve/v1/audit_service.js';
import type { Credential } from '../../src/gen/keyreeve/v1/credential.js';
import { type Key, KeyState } from '../../src/gen/keyreeve/v1/key.js';
import {
  CreateKeyRequest,
  ImportKeysRequest,
  type ImportKeysResponse,
  type CreateKeyResponse,
  type KeyServiceClient,
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
import { Decision } from '../../src/gen/keyreeve/v1/verification.js';
import { toTimestamp } from '../../src/grpc/messages.js';
import { systemRandom } from '../../src/keys/base62.js';
import { newCredential } from '../../src/keys/credential.js';
import { call } from '../support/call.js';
import { toTold } from '../support/grpc-server.js';
import type { Answers, History, Outcome } from '../support/history.js';
import type { Stored, StoredKey } from './checker.js';

export interface Replica {
  /** `host:port`. */
  readonly address: string;
  readonly keys: KeyServiceClient;
  readonly audit: AuditServiceClient;
}

const ACTOR = { type: ActorType.USER, id: 'ada', permissions: [] };
const CALL_MS = 4000;
const PAGE_SIZE = 500;
/** Ten hours: a clock that is set forward does not end it. */
const OVERLAP_S = 36_000n;
// It is killed often, and back soon.
const RECONNECT_SOON = { 'grpc.initial_reconnect_backoff_ms': 50, 'grpc.max_reconnect_backoff_ms': 200 };

/** After these nothing was changed, unless the details say otherwise. */
const REFUSALS = new Set<number>([
  status.INVALID_ARGUMENT,
  status.NOT_FOUND,
  status.ALREADY_EXISTS,
  status.PERMISSION_DENIED,
  status.RESOURCE_EXHAUSTED,
  status.FAILED_PRECONDITION,
  status.UNAUTHENTICATED,
]);

export class Clients implements Disposable {
  readonly replicas: readonly Replica[];
  readonly #history: History;
  /** In memory alone; the history names them by their index. */
  readonly #credentials: { readonly keyspace: string; readonly credential: Credential }[] = [];

  /** By the replica's index. */
  readonly #organizations = new Map<number, OrganizationServiceClient>();

  constructor(replicas: readonly Replica[], history: History) {
    this.replicas = replicas;
    this.#history = history;
  }

  create(replica: number, organization: string, request: string, name: string): Promise<Outcome<Answers['create']>> {
    return this.#history.record({ op: 'create', organization, request, name }, replica, () =>
      outcomeOf(async () => {
        const ask = CreateKeyRequest.fromPartial({ ...toRef(organization), actor: ACTOR, requestId: request, name });
        const { key, credential, replayed } = await call<CreateKeyResponse>((done) =>
          this.#keys(replica).createKey(ask, new Metadata(), inTime(), done),
        );
        return { keyId: key?.keyId ?? '', ...this.#keep(organization, credential), replayed };
      }),
    );
  }

  revoke(replica: number, organization: string, request: string, keyId: string): Promise<Outcome<Answers['revoke']>> {
    return this.#history.record({ op: 'revoke', organization, request, keyId }, replica, () =>
      outcomeOf(async () => {
        const selector = { selector: { $case: 'keyId' as const, value: keyId } };
        const ask = RevokeKeyRequest.fromPartial({
          ...toRef(organization),
          actor: ACTOR,
          requestId: request,
          selector,
        });
        const { enforcement } = await call<RevokeKeyResponse>((done) =>
          this.#keys(replica).revokeKey(ask, new Metadata(), inTime(), done),
        );
        return { complete: enforcement?.complete ?? false };
      }),
    );
  }

  /** With overlap 0, or, where it keeps the old key, with one that outlasts the run. */
  rotate(
    replica: number,
    organization: string,
    request: string,
    { keyId, keepsOld = false }: { keyId: string; keepsOld?: boolean },
  ): Promise<Outcome<Answers['rotate']>> {
    return this.#history.record({ op: 'rotate', organization, request, keyId, keepsOld }, replica, () =>
      outcomeOf(async () => {
        const ask = RotateKeyRequest.fromPartial({
          ...toRef(organization),
          actor: ACTOR,
          requestId: request,
          selector: { selector: { $case: 'keyId' as const, value: keyId } },
          overlap: { seconds: keepsOld ? OVERLAP_S : 0n, nanos: 0 },
        });
        const { key, credential, replayed, enforcement } = await call<RotateKeyResponse>((done) =>
          this.#keys(replica).rotateKey(ask, new Metadata(), inTime(), done),
        );
        const complete = enforcement?.complete ?? false;
        return { keyId: key?.keyId ?? '', ...this.#keep(organization, credential), replayed, complete };
      }),
    );
  }

  /** A credential as another system has issued it, to be imported. */
  issueElsewhere(organization: string): number {
    const form = { kind: 'bearer', prefix: 'op_', bodyLength: 49, display: 'first_four' } as const;
    const token = newCredential(form, [], systemRandom).secret.reveal();
    const { keyspace } = toRef(organization);
    return this.#credentials.push({ keyspace, credential: { kind: { $case: 'bearerToken', value: token } } }) - 1;
  }

  import(
    replica: number,
    organization: string,
    request: string,
    { name, credential }: { name: string; credential: number },
  ): Promise<Outcome<Answers['import']>> {
    return this.#history.record({ op: 'import', organization, request, name, credential }, replica, async () => {
      const kind = this.#credentials[credential]?.credential.kind;
      const token = kind?.$case === 'bearerToken' ? kind.value : '';
      const item = {
        name,
        secret: { $case: 'digest' as const, value: createHash('sha256').update(token).digest() },
      };
      const ask = ImportKeysRequest.fromPartial({
        ...toRef(organization),
        actor: ACTOR,
        requestId: request,
        keys: [item],
      });
      const answered = await outcomeOf(() =>
        call<ImportKeysResponse>((done) => this.#keys(replica).importKeys(ask, new Metadata(), inTime(), done)),
      );
      if (answered.kind !== 'acknowledged') return answered;
      const { result, alreadyImported = false } = answered.results[0] ?? {};
      if (result?.$case === 'key') {
        return { kind: 'acknowledged', keyId: result.value.keyId, credential, replayed: alreadyImported };
      }
      const { code = status.UNKNOWN, reason = '' } = result?.value ?? {};
      return { kind: REFUSALS.has(code) ? 'refused' : 'unknown', reason };
    });
  }

  updateKey(
    replica: number,
    organization: string,
    request: string,
    { keyId, off }: { keyId: string; off: boolean },
  ): Promise<Outcome<Answers['update-key']>> {
    const update = { key: { disabled: off }, updateMask: ['disabled'] };
    return this.#history.record({ op: 'update-key', organization, request, keyId, off }, replica, () =>
      this.#updateKey(replica, organization, { requestId: request, keyId, ...update }),
    );
  }

  endEarly(
    replica: number,
    organization: string,
    request: string,
    { keyId, expireTimeMs, expiryMs }: { keyId: string; expireTimeMs: number; expiryMs: number },
  ): Promise<Outcome<Answers['end-early']>> {
    const asked = { op: 'end-early', organization, request, keyId, expireTimeMs, expiryMs } as const;
    const update = { key: { expireTime: toTimestamp(new Date(expireTimeMs)) }, updateMask: ['expire_time'] };
    return this.#history.record(asked, replica, () =>
      this.#updateKey(replica, organization, { requestId: request, keyId, ...update }),
    );
  }

  #updateKey(
    replica: number,
    organization: string,
    {
      keyId,
      ...update
    }: { requestId: string; keyId: string; key: Partial<Pick<Key, 'disabled' | 'expireTime'>>; updateMask: string[] },
  ): Promise<Outcome<{ complete: boolean }>> {
    return outcomeOf(async () => {
      const selector = { selector: { $case: 'keyId' as const, value: keyId } };
      const ask = UpdateKeyRequest.fromPartial({ ...toRef(organization), actor: ACTOR, selector, ...update });
      const { enforcement } = await call<UpdateKeyResponse>((done) =>
        this.#keys(replica).updateKey(ask, new Metadata(), inTime(), done),
      );
      return { complete: enforcement?.complete ?? false };
    });
  }

  updateOrganization(
    replica: number,
    organization: string,
    request: string,
    off: boolean,
  ): Promise<Outcome<Answers['update-organization']>> {
    return this.#history.record({ op: 'update-organization', organization, request, off }, replica, () =>
      outcomeOf(async () => {
        const ask = UpdateOrganizationRequest.fromPartial({
          ...toRef(organization),
          actor: ACTOR,
          requestId: request,
          organization: { suspended: off },
          updateMask: ['suspended'],
        });
        const { enforcement } = await call<UpdateOrganizationResponse>((done) =>
          this.#organizationsOf(replica).updateOrganization(ask, new Metadata(), inTime(), done),
        );
        return { complete: enforcement?.complete ?? false };
      }),
    );
  }

  verify(replica: number, keyId: string, credential: number): Promise<Outcome<Answers['verify']>> {
    return this.#history.record({ op: 'verify', keyId, credential }, replica, () =>
      outcomeOf(async () => {
        const { decision, rateLimit } = await this.#judge(replica, credential);
        const rate = rateLimit?.resetTime && {
          rate: {
            limit: rateLimit.limit,
            remaining: rateLimit.remaining,
            resetMs: toMs(rateLimit.resetTime),
          },
        };
        return { decision: Decision[decision], ...rate };
      }),
    );
  }

  /** What is stored of these organizations, asked of the first replica until it answers. */
  async readStored(organizations: readonly string[]): Promise<Stored> {
    const keys: StoredKey[] = [];
    for (const organization of organizations) keys.push(...(await this.#listKeys(organization)));
    const decisions = new Map<number, string>();
    const readTimeMs = Date.now();
    for (const index of this.#credentials.keys()) {
      const { decision } = await untilAnswered(() => this.#judge(0, index));
      decisions.set(index, Decision[decision]);
    }
    return { keys, heads: await this.readHeads(organizations), readTimeMs, decisions };
  }

  async readHeads(organizations: readonly string[]): Promise<Stored['heads']> {
    const heads = new Map<string, { sequence: number; hash: string }>();
    for (const organization of organizations) {
      const ask = ListAuditEventsRequest.fromPartial({ ...toRef(organization), pageSize: 1 });
      const { headSequence, headHash } = await untilAnswered(() =>
        call<ListAuditEventsResponse>((done) =>
          this.#replica(0).audit.listAuditEvents(ask, new Metadata(), inTime(), done),
        ),
      );
      heads.set(organization, { sequence: Number(headSequence), hash: headHash });
    }
    return heads;
  }

  async #listKeys(organization: string): Promise<StoredKey[]> {
    const keys: StoredKey[] = [];
    let pageToken = '';
    do {
      const ask = ListKeysRequest.fromPartial({
        ...toRef(organization),
        pageSize: PAGE_SIZE,
        pageToken,
        states: [KeyState.ACTIVE, KeyState.DISABLED, KeyState.EXPIRED, KeyState.REVOKED],
      });
      const page = await untilAnswered(() =>
        call<ListKeysResponse>((done) => this.#keys(0).listKeys(ask, new Metadata(), inTime(), done)),
      );
      keys.push(
        ...page.keys.map(({ keyId, name, state, expireTime, supersededBy, rotatedFrom }) => ({
          organization,
          keyId,
          name,
          state: KeyState[state],
          ...(expireTime && { expireTimeMs: toMs(expireTime) }),
          supersededBy,
          rotatedFrom,
        })),
      );
      pageToken = page.nextPageToken;
    } while (pageToken !== '');
    return keys;
  }

  #judge(replica: number, index: number): Promise<VerifyKeyResponse> {
    const ask = VerifyKeyRequest.fromPartial(this.#credentials[index] ?? {});
    return call<VerifyKeyResponse>((done) => this.#keys(replica).verifyKey(ask, new Metadata(), inTime(), done));
  }

  #keep(organization: string, credential: Credential | undefined): { credential?: number } {
    if (!credential) return {};
    return { credential: this.#credentials.push({ keyspace: toRef(organization).keyspace, credential }) - 1 };
  }

  #keys(replica: number): KeyServiceClient {
    return this.#replica(replica).keys;
  }

  #organizationsOf(replica: number): OrganizationServiceClient {
    const made = this.#organizations.get(replica);
    if (made) return made;
    const { address } = this.#replica(replica);
    const client = new OrganizationServiceClient(address, credentials.createInsecure(), RECONNECT_SOON);
    this.#organizations.set(replica, client);
    return client;
  }

  [Symbol.dispose](): void {
    for (const client of this.#organizations.values()) client.close();
  }

  #replica(index: number): Replica {
    const replica = this.replicas[index];
    if (!replica) throw new Error(`there is no replica ${index}`);
    return replica;
  }
}

function toRef(organization: string): { keyspace: string; organizationId: string } {
  const [keyspace = '', organizationId = ''] = organization.split('/');
  return { keyspace, organizationId };
}

function toMs({ seconds, nanos }: { seconds: bigint; nanos: number }): number {
  return Number(seconds) * 1000 + nanos / 1e6;
}

function inTime(): { deadline: number } {
  return { deadline: Date.now() + CALL_MS };
}

async function outcomeOf<A>(work: () => Promise<A>): Promise<Outcome<A>> {
  try {
    return { kind: 'acknowledged', ...(await work()) };
  } catch (error) {
    if (!isServiceError(error)) throw error;
    const { code, reason } = toTold(error);
    // Codes of our own come with a reason; without one it was the connection that broke.
    if (REFUSALS.has(error.code) && reason !== undefined) return { kind: 'refused', reason };
    return { kind: 'unknown', reason: code === 'INTERNAL' && error.details.includes('RST_STREAM') ? 'RESET' : code };
  }
}

function isServiceError(error: unknown): error is Parameters<typeof toTold>[0] & { details: string } {
  return error instanceof Error && 'code' in error && 'metadata' in error && 'details' in error;
}

const ANSWER_MS_MAX = 60_000;

/** @throws the last error where it does not come about for a minute */
async function untilAnswered<T>(ask: () => Promise<T>): Promise<T> {
  const endMs = performance.now() + ANSWER_MS_MAX;
  for (;;) {
    try {
      return await ask();
    } catch (error) {
      if (performance.now() > endMs) throw error;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}
