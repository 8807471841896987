/** The server within the test's own process, on an embedded store of its own, and clients to it. */
import { credentials, Metadata, type ServiceError, status } from '@grpc/grpc-js';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { type CallerGrant, type Callers, newCallerToken, parseCallers } from '../../src/config/callers.js';
import type { TlsIdentity } from '../../src/config/access.js';
import { type Actor, ActorType } from '../../src/gen/keyreeve/v1/actor.js';
import { AuditServiceClient } from '../../src/gen/keyreeve/v1/audit_service.js';
import { Key as KeyMessage, type KeySelector } from '../../src/gen/keyreeve/v1/key.js';
import {
  CreateKeyRequest,
  type CreateKeyResponse,
  ImportKeysItem,
  ImportKeysRequest,
  KeyServiceClient,
  RevokeKeyRequest,
  RotateKeyRequest,
  UpdateKeyRequest,
} from '../../src/gen/keyreeve/v1/key_service.js';
import {
  OrganizationServiceClient,
  UpdateOrganizationRequest,
} from '../../src/gen/keyreeve/v1/organization_service.js';
import { BadRequest, ErrorInfo, QuotaFailure, RetryInfo } from '../../src/gen/google/rpc/error_details.js';
import { Status } from '../../src/gen/google/rpc/status.js';
import { type Server, serve } from '../../src/grpc/server.js';
import { systemRandom } from '../../src/keys/base62.js';
import { type Clock, systemClock } from '../../src/keys/clock.js';
import type { Keyspace } from '../../src/keys/keyspace.js';
import type { Peppers } from '../../src/keys/pepper.js';
import { createLog } from '../../src/log.js';
import { openSqliteStore } from '../../src/store/sqlite/open.js';
import type { Store } from '../../src/store/port.js';
import { openVerifier } from '../../src/verify/verifier.js';
import { call } from './call.js';
import { aKeyspace, limitedTo, SOURCE } from './domain.js';
import { makeGuardedFolder } from './guard.js';

const bearer = (prefix: string) => ({ kind: 'bearer', prefix, bodyLength: 49, display: 'first_four' }) as const;

/** One for each thing that a keyspace can ask for. */
export const KEYSPACES: readonly Keyspace[] = [
  aKeyspace({ cacheTtlMs: 5000 }),
  aKeyspace({
    name: 'named',
    credential: bearer('named_'),
    names: { required: true, unique: true, default: '' },
    types: { allowed: ['GENERIC', 'AWS'], default: 'GENERIC' },
    publicIdPrefix: 'named',
  }),
  limitedTo(3, { name: 'limited', credential: bearer('lim_') }),
  aKeyspace({ name: 'pair', credential: { kind: 'pair', prefix: '', bodyLength: 49, display: 'last_four' } }),
  aKeyspace({
    name: 'oldpair',
    credential: { kind: 'pair', prefix: 'op_', bodyLength: 49, display: 'last_four' },
    legacy: { pattern: /^sk-[a-z0-9]{32}$/, digest: 'sha256' },
  }),
  aKeyspace({ name: 'guarded', credential: bearer('grd_'), managePermissions: ['keys.manage', 'admin'] }),
  aKeyspace({
    name: 'rated',
    credential: bearer('rat_'),
    plans: new Map([['free', { name: 'free', requestsPerMinute: 60 }]]),
    cacheTtlMs: 30_000,
  }),
  aKeyspace({ name: 'brief', credential: bearer('brf_'), expiration: { maxMs: 3_600_000 }, overlapMaxMs: 60_000 }),
  aKeyspace({
    name: 'tiered',
    credential: bearer('tie_'),
    plans: new Map([
      ['small', { name: 'small', keyLimit: 1 }],
      ['large', { name: 'large', keyLimit: 3, requestsPerMinute: 60 }],
    ]),
    defaultPlan: 'small',
    cacheTtlMs: 10_000,
  }),
  aKeyspace({
    name: 'old',
    credential: bearer('old_'),
    legacy: { pattern: /^old_[a-z0-9]{32}$/, digest: 'sha256' },
  }),
  aKeyspace({
    name: 'web',
    credential: bearer('web_'),
    http: {
      credential: { kind: 'bearer', header: 'authorization', schemes: ['bearer'] },
      refusal: { status: 401, contentType: 'application/json', body: '{"error":"unauthorized"}' },
      rateLimitHeaders: 'standard',
    },
  }),
];

export const ADA: Actor = { type: ActorType.USER, id: 'ada', permissions: ['keys.manage'] };

export interface TestServer extends AsyncDisposable {
  readonly address: string;
  readonly keys: KeyServiceClient;
  readonly audit: AuditServiceClient;
  readonly organizations: OrganizationServiceClient;
  readonly server: Server;
  /** Without what `wrap` put around it. */
  readonly store: Store;
  /** The offsets of the wall clock and of the monotonic one, which a test may set. */
  readonly time: { offsetMs: number; monotonicOffsetMs: number };
  /** All that was logged, a line each. */
  readonly logged: string[];
  /** Ends the server and its store and starts both again, on the same data. */
  restart(): Promise<void>;
}

export interface TestServerOptions {
  readonly callers?: Callers;
  readonly tls?: TlsIdentity;
  /** 0, and absent: any free one. */
  readonly port?: number;
  /** What the server gets for its store. */
  readonly wrap?: (store: Store) => Store;
  readonly backlogExceeded?: () => boolean;
  /** Read at each start. */
  readonly peppers?: Peppers;
  /** Absent: an embedded store of the server's own. */
  readonly openStore?: (clock: Clock) => Promise<Store>;
}

export async function startServer(options: TestServerOptions = {}): Promise<TestServer> {
  const folder = await makeGuardedFolder(join(tmpdir(), 'keyreeve-grpc-'));
  const time = { offsetMs: 0, monotonicOffsetMs: 0 };
  const clock: Clock = {
    now: () => new Date(Date.now() + time.offsetMs),
    monotonicMs: () => systemClock.monotonicMs() + time.monotonicOffsetMs,
  };
  const logged: string[] = [];
  const log = createLog('trace', { write: (line) => logged.push(line) });
  const { callers, tls, port = 0 } = options;
  const channel = tls ? credentials.createSsl(Buffer.from(tls.certificate)) : credentials.createInsecure();
  const open = async () => {
    const store = options.openStore
      ? await options.openStore(clock)
      : openSqliteStore({ dataDir: folder.path, source: SOURCE, clock, report: () => undefined });
    const served = options.wrap?.(store) ?? store;
    const peppers = options.peppers ?? [];
    const verify = openVerifier({ store: served, peppers, clock, log });
    const server = await serve(
      { listen: { host: '127.0.0.1', port }, access: { ...(callers && { callers }), ...(tls && { tls }) } },
      {
        store: served,
        verify,
        keyspaces: new Map(KEYSPACES.map((keyspace) => [keyspace.name, keyspace])),
        clock,
        random: systemRandom,
        peppers,
        backlogExceeded: options.backlogExceeded ?? (() => false),
      },
      log,
    );
    const { address } = server;
    const keys = new KeyServiceClient(address, channel);
    const audit = new AuditServiceClient(address, channel);
    const organizations = new OrganizationServiceClient(address, channel);
    return { store, verify, server, address, keys, audit, organizations };
  };
  let opened = await open();
  const close = async () => {
    opened.keys.close();
    opened.audit.close();
    opened.organizations.close();
    await opened.server[Symbol.asyncDispose]();
    await opened.verify[Symbol.asyncDispose]();
    await opened.store[Symbol.asyncDispose]();
  };
  return {
    get address() {
      return opened.address;
    },
    get keys() {
      return opened.keys;
    },
    get audit() {
      return opened.audit;
    },
    get organizations() {
      return opened.organizations;
    },
    get server() {
      return opened.server;
    },
    get store() {
      return opened.store;
    },
    time,
    logged,
    async restart() {
      await close();
      opened = await open();
    },
    async [Symbol.asyncDispose]() {
      await close();
      await folder[Symbol.asyncDispose]();
    },
  };
}

/** A request that succeeds in the keyspace `shop`, unless fields say otherwise. */
export function toCreate(fields: Partial<CreateKeyRequest> = {}): CreateKeyRequest {
  return {
    ...CreateKeyRequest.fromPartial({}),
    keyspace: 'shop',
    organizationId: 'acme',
    actor: ADA,
    name: 'ci',
    ...fields,
  };
}

/** A request that revokes the key, unless fields say otherwise. */
export function toRevoke(key: KeyPlace, fields: Partial<RevokeKeyRequest> = {}): RevokeKeyRequest {
  return { ...RevokeKeyRequest.fromPartial({}), ...about(key), ...fields };
}

/** A request that rotates the key, unless fields say otherwise. */
export function toRotate(key: KeyPlace, fields: Partial<RotateKeyRequest> = {}): RotateKeyRequest {
  return { ...RotateKeyRequest.fromPartial({}), ...about(key), ...fields };
}

/** A request that changes the fields of the key, named as the mask does. */
export function toUpdate(
  key: KeyPlace,
  changes: Partial<KeyMessage>,
  fields: Partial<UpdateKeyRequest> = {},
): UpdateKeyRequest {
  const updateMask = Object.keys(changes).map((name) => (name === 'expireTime' ? 'expire_time' : name));
  const request = UpdateKeyRequest.fromPartial({ updateMask });
  return { ...request, key: { ...KeyMessage.fromPartial({}), ...changes }, ...about(key), ...fields };
}

/** A request that takes over these keys in the keyspace `shop`, unless fields say otherwise. */
export function toImport(
  items: readonly Partial<ImportKeysItem>[],
  fields: Partial<ImportKeysRequest> = {},
): ImportKeysRequest {
  return {
    ...ImportKeysRequest.fromPartial({}),
    keyspace: 'shop',
    organizationId: 'acme',
    actor: ADA,
    keys: items.map((item) => ({ ...ImportKeysItem.fromPartial({}), ...item })),
    ...fields,
  };
}

/** A request that changes what is set for the organization `tiered/acme`, unless fields say otherwise. */
export function toUpdateOrganization(
  changes: { readonly plan?: string; readonly suspended?: boolean },
  fields: Partial<UpdateOrganizationRequest> = {},
): UpdateOrganizationRequest {
  return {
    ...UpdateOrganizationRequest.fromPartial({ organization: changes, updateMask: Object.keys(changes) }),
    keyspace: 'tiered',
    organizationId: 'acme',
    actor: ADA,
    ...fields,
  };
}

interface KeyPlace {
  readonly keyspace: string;
  readonly organizationId: string;
  readonly keyId: string;
}

function about({ keyspace, organizationId, keyId }: KeyPlace) {
  const selector: KeySelector = { selector: { $case: 'keyId', value: keyId } };
  return { keyspace, organizationId, actor: ADA, selector };
}

/** Issues a key; answers it with its credential. */
export async function create(
  { keys }: Pick<TestServer, 'keys'>,
  fields: Partial<CreateKeyRequest> = {},
): Promise<{ key: NonNullable<CreateKeyResponse['key']>; credential: NonNullable<CreateKeyResponse['credential']> }> {
  const { key, credential } = await call<CreateKeyResponse>((done) => keys.createKey(toCreate(fields), done));
  if (!key || !credential) throw new Error('a key without credential was answered');
  return { key, credential };
}

/** What a client was told instead of a response, the details decoded. */
export interface Told {
  readonly code: string;
  readonly reason?: string;
  readonly domain?: string;
  readonly metadata?: Record<string, string>;
  readonly fields?: readonly string[];
  readonly quota?: readonly string[];
  readonly retrySeconds?: number;
}

/** The error that the call ends with. */
export async function errorOf(answer: Promise<unknown>): Promise<ServiceError> {
  const error = await answer.then(
    (response) => new Error(`answered instead of refused: ${String(response)}`),
    (refused: unknown) => refused,
  );
  if (error instanceof Error && 'code' in error && 'details' in error) return error as ServiceError;
  throw error;
}

export async function toldBy(answer: Promise<unknown>): Promise<Told> {
  return toTold(await errorOf(answer));
}

export function toTold({ code, metadata }: { code: number; metadata: Metadata }): Told {
  const [bytes] = metadata.get('grpc-status-details-bin');
  const name = status[code] ?? String(code);
  if (!(bytes instanceof Buffer)) return { code: name };
  const { details } = Status.decode(bytes);
  const one = <T>(type: string, decode: (value: Uint8Array) => T): T | undefined => {
    const found = details.find(({ typeUrl }) => typeUrl === `type.googleapis.com/google.rpc.${type}`);
    return found && decode(found.value);
  };
  const info = one('ErrorInfo', (value) => ErrorInfo.decode(value));
  const badRequest = one('BadRequest', (value) => BadRequest.decode(value));
  const quota = one('QuotaFailure', (value) => QuotaFailure.decode(value));
  const retry = one('RetryInfo', (value) => RetryInfo.decode(value));
  return {
    code: name,
    ...(info && { reason: info.reason, domain: info.domain, metadata: Object.fromEntries(info.metadata) }),
    ...(badRequest && { fields: badRequest.fieldViolations.map(({ field }) => field) }),
    ...(quota && { quota: quota.violations.map(({ subject }) => subject) }),
    ...(retry?.retryDelay && { retrySeconds: Number(retry.retryDelay.seconds) }),
  };
}

/** Callers as a file of the lines that come with their tokens lets them in; a token by each one's name. */
export function letIn<Name extends string>(
  grants: Readonly<Record<Name, Partial<Omit<CallerGrant, 'name'>>>>,
): { callers: Callers; as: Readonly<Record<Name, Metadata>> } {
  const made = Object.entries<Partial<CallerGrant>>(grants).map(([name, grant]) => {
    const token = newCallerToken({ roles: [], keyspaces: ['*'], organizations: ['*'], ...grant, name });
    if (Array.isArray(token)) throw new Error(JSON.stringify(token));
    return { name, ...token };
  });
  const callers = parseCallers(`callers:\n${made.map(({ line }) => line).join('\n')}\n`, undefined);
  if (Array.isArray(callers)) throw new Error(JSON.stringify(callers));
  const as = Object.fromEntries(made.map(({ name, token }) => [name, withToken(token.reveal())]));
  return { callers, as: as as Record<Name, Metadata> };
}

/** The metadata of a call with this token. */
export function withToken(token: string): Metadata {
  const metadata = new Metadata();
  metadata.set('authorization', `Bearer ${token}`);
  return metadata;
}
