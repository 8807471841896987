/**
 * The service from TypeScript: `keyreeve/client`.
 *
 * Every call is answered with what was asked for or with a refusal, as values; a call that came to no answer within its
 * time throws a `ServiceFault`. What is UNAVAILABLE, or not answered in time by one replica, is tried again until then,
 * with growing pauses and on another replica where there is one: changes carry a request id, so none is made twice.
 */
import { Calls } from './calls.js';
import type { InOrganization } from './change.js';
import { type ConnectionOptions, Connections } from './connections.js';
import { type CreatedKey, type CreateKey, createKey } from './create-key.js';
import { Deadline } from './deadline.js';
import { type GetKey, getKey } from './get-key.js';
import { getOrganization } from './get-organization.js';
import { type ImportedKeys, type ImportKeys, importKeys } from './import-keys.js';
import type { Key } from './key.js';
import { type ListAuditEvents, listAuditEvents, type ListedAuditEvents } from './list-audit-events.js';
import { type ListedKeys, type ListKeys, listKeys } from './list-keys.js';
import type { Organization } from './organization.js';
import type { Answer } from './refusal.js';
import { type RevokedKey, type RevokeKey, revokeKey } from './revoke-key.js';
import { type RotatedKey, type RotateKey, rotateKey } from './rotate-key.js';
import { UnderWay } from './under-way.js';
import { type UpdatedKey, type UpdateKey, updateKey } from './update-key.js';
import { type UpdatedOrganization, type UpdateOrganization, updateOrganization } from './update-organization.js';
import { toVerification, toVerifyKeyRequest, type Verification, type VerifyKey } from './verification.js';
import { Verifications } from './verifications.js';

export type { ClientCredential, Credential } from './credential.js';
export type { Change, InOrganization } from './change.js';
export type { ConnectionOptions, TlsOptions } from './connections.js';
export type { CreatedKey, CreateKey } from './create-key.js';
export { ServiceFault } from './fault.js';
export type { GetKey } from './get-key.js';
export type { ImportedKeys, ImportKeys, ImportResult, KeyToImport } from './import-keys.js';
export type { Actor, Enforcement, Expiration, Key, KeySelector } from './key.js';
export type { ListAuditEvents, ListedAuditEvents } from './list-audit-events.js';
export type { ListedKeys, ListKeys } from './list-keys.js';
export type { Organization } from './organization.js';
export type { Answer, FieldViolation, Refusal, RefusalReason } from './refusal.js';
export type { RevokedKey, RevokeKey } from './revoke-key.js';
export type { RotatedKey, RotateKey } from './rotate-key.js';
export type { UpdatedKey, UpdateKey } from './update-key.js';
export type { UpdatedOrganization, UpdateOrganization } from './update-organization.js';
export type { Allowed, Denial, Denied, RateLimit, Verification, VerifiedKey, VerifyKey } from './verification.js';

export interface ClientOptions extends ConnectionOptions {
  /** For a verification, all its tries included: 3,000 by default. */
  readonly verifyTimeoutMs?: number | undefined;
  /**
   * For any other call: 30,000 by default. What takes access away waits for it to be in force everywhere, which after the
   * crash of a replica takes as long as its lease; with less time it is answered `complete: false`.
   */
  readonly timeoutMs?: number | undefined;
}

export interface CallOptions {
  /** For this call. */
  readonly timeoutMs?: number | undefined;
}

/**
 * Begins to connect, and waits for nothing. One client is enough for a process.
 * @throws TypeError where an option cannot be what it is
 */
export function openClient(options: ClientOptions): KeyreeveClient {
  return new KeyreeveClient(options);
}

/** Every method throws `ServiceFault` where it comes to no answer. */
export class KeyreeveClient implements AsyncDisposable {
  readonly #connections: Connections;
  readonly #underWay = new UnderWay();
  readonly #calls: Calls;
  readonly #verifications: Verifications;
  readonly #timeoutMs: number;
  readonly #verifyTimeoutMs: number;

  /** @throws TypeError where an option cannot be what it is */
  constructor({ timeoutMs = 30_000, verifyTimeoutMs = 3000, ...options }: ClientOptions) {
    for (const ms of [timeoutMs, verifyTimeoutMs]) new Deadline(ms);
    this.#timeoutMs = timeoutMs;
    this.#verifyTimeoutMs = verifyTimeoutMs;
    this.#connections = new Connections(options);
    this.#calls = new Calls(this.#connections, this.#underWay.closing);
    this.#verifications = new Verifications(this.#connections, this.#underWay.closing);
  }

  /**
   * Says whether a credential lets a request in. Only `allowed: true` does; a decision that this version does not know is
   * a denial. Where the service is away, or too slow, this throws: it never says yes or no for it.
   *
   * Verifications that are asked for together travel together (BatchVerifyKeys), and one that is alone travels alone and
   * at once (VerifyKey). One that is tried again may count twice against the key's rate limit.
   */
  async verify(ask: VerifyKey, { timeoutMs = this.#verifyTimeoutMs }: CallOptions = {}): Promise<Verification> {
    const deadline = new Deadline(timeoutMs);
    return toVerification(
      await this.#underWay.add(() => this.#verifications.verify(toVerifyKeyRequest(ask), deadline)),
    );
  }

  /**
   * Issues a key. The credential is told this once.
   *
   * An answer that gets lost takes the credential with it, and the service tells it to nobody again. The key that it was
   * of is then rotated with overlap 0, so that there is one key as before, whose credential somebody has: `recovered` is
   * true, `key` is the successor, and the audit shows both. Likewise who repeats a create under a `requestId` of their own
   * gets a new credential, and ends the one that the first answer told.
   */
  createKey(ask: CreateKey, options?: CallOptions): Promise<Answer<CreatedKey>> {
    return this.#call(createKey, ask, options);
  }

  /** One key, also a revoked one. */
  getKey(ask: GetKey, options?: CallOptions): Promise<Answer<{ readonly key: Key }>> {
    return this.#call(getKey, ask, options);
  }

  /** A page of an organization's keys, newest first. */
  listKeys(ask: ListKeys, options?: CallOptions): Promise<Answer<ListedKeys>> {
    return this.#call(listKeys, ask, options);
  }

  /** Changes name, labels, scopes or expiry, or switches a key off and on. */
  updateKey(ask: UpdateKey, options?: CallOptions): Promise<Answer<UpdatedKey>> {
    return this.#call(updateKey, ask, options);
  }

  /**
   * Issues a successor. Its credential is told this once: where the answer got lost, this answers `replayed`, and no
   * credential. Rotating the successor then yields one; it also ends a key whose overlap still lasts, which is why it is
   * left to you.
   */
  rotateKey(ask: RotateKey, options?: CallOptions): Promise<Answer<RotatedKey>> {
    return this.#call(rotateKey, ask, options);
  }

  /** Ends a key for good. Revoking again answers as the first time, and waits again until it is in force. */
  revokeKey(ask: RevokeKey, options?: CallOptions): Promise<Answer<RevokedKey>> {
    return this.#call(revokeKey, ask, options);
  }

  /** Takes over keys that were issued elsewhere. Each is taken over or refused by itself. */
  importKeys(ask: ImportKeys, options?: CallOptions): Promise<Answer<ImportedKeys>> {
    return this.#call(importKeys, ask, options);
  }

  /** One never written answers its keyspace's defaults. */
  getOrganization(
    ask: InOrganization,
    options?: CallOptions,
  ): Promise<Answer<{ readonly organization: Organization }>> {
    return this.#call(getOrganization, ask, options);
  }

  /** Changes the plan; suspends, and lets go on. */
  updateOrganization(ask: UpdateOrganization, options?: CallOptions): Promise<Answer<UpdatedOrganization>> {
    return this.#call(updateOrganization, ask, options);
  }

  /** A page of an organization's audit events, oldest first. */
  listAuditEvents(ask: ListAuditEvents, options?: CallOptions): Promise<Answer<ListedAuditEvents>> {
    return this.#call(listAuditEvents, ask, options);
  }

  /** Takes nothing new, repeats nothing, lets what is under way have its answer, and disconnects. */
  async close(): Promise<void> {
    await this.#underWay.end();
    this.#connections.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #call<Ask, Content>(
    method: (calls: Calls, ask: Ask, deadline: Deadline) => Promise<Answer<Content>>,
    ask: Ask,
    { timeoutMs = this.#timeoutMs }: CallOptions = {},
  ): Promise<Answer<Content>> {
    const deadline = new Deadline(timeoutMs);
    return this.#underWay.add(() => method(this.#calls, ask, deadline));
  }
}
