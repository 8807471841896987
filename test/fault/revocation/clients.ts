/** Clients that ask about access, and record what they are told. What breaks on the way is an outcome that they do not know. */
import { credentials, Metadata, status } from '@grpc/grpc-js';

import { ActorType } from '../../../src/gen/keyreeve/v1/actor.js';
import type { Credential } from '../../../src/gen/keyreeve/v1/credential.js';
import type { Enforcement } from '../../../src/gen/keyreeve/v1/enforcement.js';
import {
  BatchVerifyKeysRequest,
  type BatchVerifyKeysResponse,
  type BatchVerifyKeysResult,
  CreateKeyRequest,
  type CreateKeyResponse,
  RevokeKeyRequest,
  type RevokeKeyResponse,
  RotateKeyRequest,
  type RotateKeyResponse,
  UpdateKeyRequest,
  type UpdateKeyResponse,
  VerifyKeyRequest,
  type VerifyKeyResponse,
} from '../../../src/gen/keyreeve/v1/key_service.js';
import {
  OrganizationServiceClient,
  UpdateOrganizationRequest,
  type UpdateOrganizationResponse,
} from '../../../src/gen/keyreeve/v1/organization_service.js';
import { Decision } from '../../../src/gen/keyreeve/v1/verification.js';
import { toTimestamp } from '../../../src/grpc/messages.js';
import { call } from '../../support/call.js';
import { toTold } from '../../support/grpc-server.js';
import type { Replica } from '../clients.js';
import type { GivingBack, Taking, TakingOutcome, Target, Verification, VerificationOutcome, Way } from './history.js';

/** A key and what opens with it. */
export interface HeldKey {
  readonly keyId: string;
  readonly keyspace: string;
  readonly organizationId: string;
  readonly name: string;
  readonly credential: Credential;
}

/** What access is taken from: a key with its lineage, or an organization with its keys. */
export interface Holding {
  /** The first of them is the newest of its lineage. */
  readonly keys: readonly HeldKey[];
}

export interface TakeOptions {
  readonly replica: number;
  readonly patienceMs: number;
  /** Absent: the request has no id. */
  readonly request?: string;
  /** `shorten` only: when it ends. */
  readonly expireTime?: Date;
}

export const KEYSPACE = 'open';
const ACTOR = { type: ActorType.USER, id: 'ada', permissions: [] };
/**
 * Longer than anything keeps a healthy replica from answering. On a machine that is busy a short one makes things worse:
 * what is given up is asked again, and the servers work on both.
 */
const VERIFY_MS = 30_000;
const CHANGE_MS = 30_000;
const OVERLAP_S = 36_000n;
const NARROW = ['read'];
const WIDE = ['read', 'write'];
const RECONNECT_SOON = { 'grpc.initial_reconnect_backoff_ms': 50, 'grpc.max_reconnect_backoff_ms': 200 };

export class AccessClients implements Disposable {
  readonly takings: Taking[] = [];
  readonly givings: GivingBack[] = [];
  readonly verifications: Verification[] = [];
  readonly replicas: readonly Replica[];
  readonly #organizations: readonly OrganizationServiceClient[];
  /** By the replica's index: keys that it has called valid. */
  readonly #warm: readonly Set<string>[];

  constructor(replicas: readonly Replica[]) {
    this.replicas = replicas;
    this.#organizations = replicas.map(
      ({ address }) => new OrganizationServiceClient(address, credentials.createInsecure(), RECONNECT_SOON),
    );
    this.#warm = replicas.map(() => new Set());
  }

  /** The replica has begun anew, or is made to forget. */
  cool(replica: number): void {
    this.#warm[replica]?.clear();
  }

  /** Undefined where it was not made, or nobody knows. */
  async create(replica: number, organizationId: string, name: string): Promise<HeldKey | undefined> {
    const ask = CreateKeyRequest.fromPartial({
      ...toChange({ organizationId, request: `create-${organizationId}-${name}` }),
      name,
      scopes: WIDE,
    });
    const created = await known(
      call<CreateKeyResponse>((done) => this.#keys(replica).createKey(ask, new Metadata(), until(CHANGE_MS), done)),
    );
    if (!created?.key || !created.credential) return undefined;
    const { keyId } = created.key;
    return { keyId, keyspace: KEYSPACE, organizationId, name, credential: created.credential };
  }

  /** Rotates, and the old key goes on. Undefined where that did not happen, or nobody knows. */
  async succeed(replica: number, old: HeldKey): Promise<HeldKey | undefined> {
    const ask = RotateKeyRequest.fromPartial({
      ...toChange({ ...old, request: `succeed-${old.keyId}` }),
      selector: byId(old),
      overlap: { seconds: OVERLAP_S, nanos: 0 },
    });
    const rotated = await known(
      call<RotateKeyResponse>((done) => this.#keys(replica).rotateKey(ask, new Metadata(), until(CHANGE_MS), done)),
    );
    if (!rotated?.key || !rotated.credential) return undefined;
    return { ...old, keyId: rotated.key.keyId, credential: rotated.credential };
  }

  async take(way: Way, holding: Holding, options: TakeOptions): Promise<TakingOutcome> {
    const { replica, patienceMs, expireTime } = options;
    const target: Target = {
      way,
      keys: targeted(way, holding).map(({ keyId }) => keyId),
      ...(expireTime && { expiryMs: toMonotonicMs(expireTime.getTime()) }),
    };
    const startMs = performance.now();
    let outcome: TakingOutcome;
    try {
      const enforcement = await this.#take(way, newest(holding), options);
      const { complete = false, completeByTime } = enforcement ?? {};
      const byMs = completeByTime && toMonotonicMs(Number(completeByTime.seconds) * 1000 + completeByTime.nanos / 1e6);
      outcome = { kind: 'answered', complete, ...(byMs !== undefined && { byMs }) };
    } catch (error) {
      const { reason, isRefusal } = told(error);
      outcome = { kind: isRefusal ? 'refused' : 'unknown', reason };
    }
    this.takings.push({ target, replica, patienceMs, startMs, endMs: performance.now(), outcome });
    return outcome;
  }

  async #take(
    way: Way,
    key: HeldKey,
    { replica, patienceMs, request, expireTime }: TakeOptions,
  ): Promise<Enforcement | undefined> {
    const change = toChange({ ...key, ...(request !== undefined && { request }) });
    const deadline = until(patienceMs);
    const selector = byId(key);
    const update = async (updated: object, updateMask: string[]) => {
      const ask = UpdateKeyRequest.fromPartial({ ...change, selector, key: updated, updateMask });
      return call<UpdateKeyResponse>((done) => this.#keys(replica).updateKey(ask, new Metadata(), deadline, done));
    };
    switch (way) {
      case 'revoke':
      case 'revoke by name': {
        const named = { selector: { $case: 'name' as const, value: key.name } };
        const ask = RevokeKeyRequest.fromPartial({ ...change, selector: way === 'revoke' ? selector : named });
        const revoked = await call<RevokeKeyResponse>((done) =>
          this.#keys(replica).revokeKey(ask, new Metadata(), deadline, done),
        );
        return revoked.enforcement;
      }
      case 'rotate': {
        const ask = RotateKeyRequest.fromPartial({ ...change, selector, overlap: { seconds: 0n, nanos: 0 } });
        const rotated = await call<RotateKeyResponse>((done) =>
          this.#keys(replica).rotateKey(ask, new Metadata(), deadline, done),
        );
        return rotated.enforcement;
      }
      case 'disable':
        return (await update({ disabled: true }, ['disabled'])).enforcement;
      case 'narrow':
        return (await update({ scopes: NARROW }, ['scopes'])).enforcement;
      case 'shorten':
        return (await update({ expireTime: expireTime && toTimestamp(expireTime) }, ['expire_time'])).enforcement;
      case 'suspend':
        return (await this.#suspend(replica, change, deadline, true)).enforcement;
    }
  }

  /** Enables or resumes; answers whether that is known to have happened. */
  async giveBack(way: 'disable' | 'suspend', holding: Holding, replica: number): Promise<boolean> {
    const key = newest(holding);
    const change = toChange(key);
    const deadline = until(CHANGE_MS);
    // It may happen from now on, whatever the client is told.
    const startMs = performance.now();
    const giving = { target: { way, keys: targeted(way, holding).map(({ keyId }) => keyId) }, replica, startMs };
    const at = this.givings.push({ ...giving, endMs: Number.POSITIVE_INFINITY }) - 1;
    const asked =
      way === 'suspend'
        ? this.#suspend(replica, change, deadline, false)
        : call<UpdateKeyResponse>((done) => {
            const enabled = { key: { disabled: false }, updateMask: ['disabled'] };
            const ask = UpdateKeyRequest.fromPartial({ ...change, selector: byId(key), ...enabled });
            this.#keys(replica).updateKey(ask, new Metadata(), deadline, done);
          });
    if (!(await known<unknown>(asked))) return false;
    this.givings[at] = { ...giving, endMs: performance.now() };
    return true;
  }

  #suspend(
    replica: number,
    change: Change,
    deadline: { deadline: number },
    suspended: boolean,
  ): Promise<UpdateOrganizationResponse> {
    const ask = UpdateOrganizationRequest.fromPartial({
      ...change,
      organization: { suspended },
      updateMask: ['suspended'],
    });
    return call<UpdateOrganizationResponse>((done) =>
      this.#organization(replica).updateOrganization(ask, new Metadata(), deadline, done),
    );
  }

  /** @param wide whether the scope that `narrow` takes away is asked for */
  async verify(replica: number, key: HeldKey, wide = true): Promise<VerificationOutcome> {
    const startMs = performance.now();
    const warm = this.#isWarm(replica, key);
    let outcome: VerificationOutcome;
    try {
      const { decision } = await call<VerifyKeyResponse>((done) =>
        this.#keys(replica).verifyKey(toVerify(key, wide), new Metadata(), until(VERIFY_MS), done),
      );
      outcome = { kind: 'decided', decision: Decision[decision] };
    } catch (error) {
      outcome = { kind: 'failed', reason: told(error).reason };
    }
    this.#record({ replica, startMs, endMs: performance.now(), keyId: key.keyId, wide, warm, via: 'single', outcome });
    return outcome;
  }

  async verifyBatch(replica: number, keys: readonly HeldKey[], wide = true): Promise<void> {
    const startMs = performance.now();
    const warm = keys.map((key) => this.#isWarm(replica, key));
    const ask = BatchVerifyKeysRequest.fromPartial({ requests: keys.map((key) => toVerify(key, wide)) });
    const outcomes = await call<BatchVerifyKeysResponse>((done) =>
      this.#keys(replica).batchVerifyKeys(ask, new Metadata(), until(VERIFY_MS), done),
    ).then(
      ({ results }) => results.map(toOutcome),
      (error: unknown) => keys.map(() => ({ kind: 'failed', reason: told(error).reason }) as const),
    );
    const endMs = performance.now();
    for (const [at, { keyId }] of keys.entries()) {
      const outcome = outcomes[at] ?? { kind: 'failed', reason: 'no result' };
      this.#record({ replica, startMs, endMs, keyId, wide, warm: warm[at] ?? false, via: 'batch', outcome });
    }
  }

  #isWarm(replica: number, { keyId }: HeldKey): boolean {
    return this.#warm[replica]?.has(keyId) ?? false;
  }

  #record(verification: Verification): void {
    const { replica, keyId, outcome } = verification;
    if (outcome.kind === 'decided' && outcome.decision === 'VALID') this.#warm[replica]?.add(keyId);
    this.verifications.push(verification);
  }

  #keys(replica: number): Replica['keys'] {
    const found = this.replicas[replica];
    if (!found) throw new Error(`there is no replica ${replica}`);
    return found.keys;
  }

  #organization(replica: number): OrganizationServiceClient {
    const found = this.#organizations[replica];
    if (!found) throw new Error(`there is no replica ${replica}`);
    return found;
  }

  [Symbol.dispose](): void {
    for (const client of this.#organizations) client.close();
  }
}

type Change = ReturnType<typeof toChange>;

function toChange({ organizationId, request = '' }: { organizationId: string; request?: string }) {
  return { keyspace: KEYSPACE, organizationId, actor: ACTOR, requestId: request };
}

function newest({ keys: [first] }: Holding): HeldKey {
  if (!first) throw new Error('a holding without a key');
  return first;
}

/** What takes a place takes the lineage with it; what concerns a key leaves alone those that it succeeded. */
const OF_ALL = new Set<Way>(['revoke by name', 'rotate', 'suspend']);

function targeted(way: Way, holding: Holding): readonly HeldKey[] {
  return OF_ALL.has(way) ? holding.keys : [newest(holding)];
}

function byId({ keyId }: HeldKey) {
  return { selector: { $case: 'keyId' as const, value: keyId } };
}

function toVerify({ keyspace, credential }: HeldKey, wide: boolean): VerifyKeyRequest {
  return VerifyKeyRequest.fromPartial({ keyspace, credential, requiredScopes: wide ? WIDE : NARROW });
}

function toOutcome({ result }: BatchVerifyKeysResult): VerificationOutcome {
  if (result?.$case === 'response') return { kind: 'decided', decision: Decision[result.value.decision] };
  return { kind: 'failed', reason: result?.value.reason ?? 'no result' };
}

function until(ms: number): { deadline: number } {
  return { deadline: Date.now() + ms };
}

/** Of a wall clock's time, which is this process's own or that of one beside it. */
function toMonotonicMs(wallMs: number): number {
  return wallMs - Date.now() + performance.now();
}

const REFUSALS = new Set<number>([
  status.INVALID_ARGUMENT,
  status.NOT_FOUND,
  status.ALREADY_EXISTS,
  status.PERMISSION_DENIED,
  status.FAILED_PRECONDITION,
]);

function told(error: unknown): { reason: string; isRefusal: boolean } {
  if (!isServiceError(error)) throw error;
  const { code, reason } = toTold(error);
  return { reason: reason ?? code, isRefusal: reason !== undefined && REFUSALS.has(error.code) };
}

function isServiceError(error: unknown): error is Parameters<typeof toTold>[0] {
  return error instanceof Error && 'code' in error && 'metadata' in error;
}

async function known<T>(answer: Promise<T>): Promise<T | undefined> {
  try {
    return await answer;
  } catch (error) {
    told(error);
    return undefined;
  }
}
