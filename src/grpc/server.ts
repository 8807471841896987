/** The server: its calls, its limits, its end. */
import { Server as GrpcServer, ServerCredentials, type ServerOptions as GrpcServerOptions } from '@grpc/grpc-js';
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

import type { Access } from '../config/access.js';
import { type Address, formatAddress } from '../config/address.js';
import { AuthorizationService, type AuthorizationServer } from '../gen/envoy/service/auth/v3/external_auth.js';
import { AuditServiceService, type AuditServiceServer } from '../gen/keyreeve/v1/audit_service.js';
import { KeyServiceService, type KeyServiceServer } from '../gen/keyreeve/v1/key_service.js';
import { OrganizationServiceService, type OrganizationServiceServer } from '../gen/keyreeve/v1/organization_service.js';
import type { Log } from '../log.js';
import { authenticateBy, shownOverGrpc } from './callers.js';
import { handleBatchVerifyKeys, serializeBatch } from './batch-verify-keys.js';
import { handleCheck, serializeAnswer } from './check.js';
import { handleCreateKey } from './create-key.js';
import { handleGetKey } from './get-key.js';
import { handleGetOrganization } from './get-organization.js';
import { startHealth } from './health.js';
import { handleImportKeys } from './import-keys.js';
import { handleListAuditEvents } from './list-audit-events.js';
import { handleListKeys } from './list-keys.js';
import type { Parts } from './parts.js';
import { addReflection } from './reflection.js';
import { handleRevokeKey } from './revoke-key.js';
import { handleRotateKey } from './rotate-key.js';
import { ReloadableTls } from './reloadable-tls.js';
import { RunningCalls } from './running-calls.js';
import { readTrace } from './trace.js';
import { type Around, unary } from './unary.js';
import { handleUpdateKey } from './update-key.js';
import { handleUpdateOrganization } from './update-organization.js';
import { handleVerifyKey, serializeVerification } from './verify-key.js';

export interface ServerOptions {
  readonly listen: Address;
  /** Without `tls` it listens without TLS; without `callers` everyone is the caller `local`, with every right. */
  readonly access: Access;
}

/** Disposing it refuses what is new, lets running calls finish, and takes 4 seconds at most. */
export interface Server extends AsyncDisposable {
  /** `host:port` as it listens, the port also where any free one was asked for. */
  readonly address: string;
  /** Whether it can answer calls now, as health tells. */
  isReady(): boolean;
  /** From now on health says so, and calls are still answered. */
  notServing(): void;
  /** From now on this is who may call, and the certificates of new connections. With TLS it was begun, or without. */
  admit(access: Access): void;
}

/** The transport's settings. */
export const LIMITS: GrpcServerOptions = {
  'grpc.max_receive_message_length': 256 * 1024,
  'grpc.max_concurrent_streams': 100,
  // So that connections spread over replicas that came later.
  'grpc.max_connection_age_ms': 30 * 60_000,
  'grpc.max_connection_age_grace_ms': 60_000,
  'grpc.max_connection_idle_ms': 15 * 60_000,
  // Finds out clients that are gone without a word.
  'grpc.keepalive_time_ms': 60_000,
  'grpc.keepalive_timeout_ms': 20_000,
  // Not for its figures: without it `forceShutdown` knows no connections, and leaves them all open.
  'grpc.enable_channelz': 1,
};

// With what the relay and the store need after it, the process ends within 10 s.
const FINISH_MS_MAX = 3000;
// For last answers to leave, once every call has one. What then still holds the server up never came whole.
const FLUSH_MS = 1000;

/** @throws Error where the certificate cannot be used, or that names the address where it cannot listen there */
export async function serve({ listen, access }: ServerOptions, parts: Parts, log: Log): Promise<Server> {
  const { store, clock, observe = () => () => undefined } = parts;
  let { callers } = access;
  const running = new RunningCalls();
  const server = new GrpcServer({ ...LIMITS, interceptors: [running.interceptor] });
  addCalls(server, parts, {
    authenticate: authenticateBy(
      shownOverGrpc,
      () => callers,
      () => clock.now(),
    ),
    traceOf: ({ metadata }) => readTrace(metadata.get('traceparent')),
    clock,
    running,
    log,
    observe,
  });
  addReflection(server);
  const tls = access.tls && new ReloadableTls(access.tls);
  const connections = new Connections();
  const health = await startHealth(store, clock, log);
  try {
    health.addToServer(server);
    const port = await bind(server, listen, tls ?? ServerCredentials.createInsecure());
    return {
      address: formatAddress({ ...listen, port }),
      isReady: () => health.isReady(),
      notServing: () => health.notServing(),
      admit(next) {
        callers = next.callers;
        if (next.tls) tls?.present(next.tls);
      },
      async [Symbol.asyncDispose]() {
        health.notServing();
        running.end();
        await shutDown(server, running);
        connections.cutOff(port);
        await health[Symbol.asyncDispose]();
      },
    };
  } catch (error) {
    connections.cutOff();
    await health[Symbol.asyncDispose]();
    throw error;
  }
}

/**
 * The sockets that this process accepts, which the transport gives no access to. It ends an HTTP/2 session that it was
 * closing already by FIN alone, also when it is told to destroy it: a client that neither reads nor closes, or is gone
 * without a word, would keep the process from ending.
 */
class Connections {
  readonly #sockets = new Set<Socket>();
  readonly #add = (message: unknown): void => {
    const { socket } = message as { socket: Socket };
    this.#sockets.add(socket);
    socket.once('close', () => this.#sockets.delete(socket));
  };

  constructor() {
    subscribe(ACCEPTED, this.#add);
  }

  /** @param port of the server whose connections to cut; absent: it has none */
  cutOff(port?: number): void {
    unsubscribe(ACCEPTED, this.#add);
    for (const socket of this.#sockets) if (socket.localPort === port) socket.destroy();
    this.#sockets.clear();
  }
}

// https://nodejs.org/docs/latest-v20.x/api/diagnostics_channel.html#net
const ACCEPTED = 'net.server.socket';

/** The transport answers UNIMPLEMENTED for calls that are not named. */
function addCalls(server: GrpcServer, parts: Parts, around: Around): void {
  const verifyKey = { ...KeyServiceService.verifyKey, responseSerialize: serializeVerification };
  const batchVerifyKeys = { ...KeyServiceService.batchVerifyKeys, responseSerialize: serializeBatch };
  server.addService({ ...KeyServiceService, verifyKey, batchVerifyKeys }, {
    createKey: unary('CreateKey', handleCreateKey(parts), around),
    getKey: unary('GetKey', handleGetKey(parts), around),
    listKeys: unary('ListKeys', handleListKeys(parts), around),
    updateKey: unary('UpdateKey', handleUpdateKey(parts), around),
    revokeKey: unary('RevokeKey', handleRevokeKey(parts), around),
    rotateKey: unary('RotateKey', handleRotateKey(parts), around),
    verifyKey: unary('VerifyKey', handleVerifyKey(parts), around),
    batchVerifyKeys: unary('BatchVerifyKeys', handleBatchVerifyKeys(parts), around),
    importKeys: unary('ImportKeys', handleImportKeys(parts), around),
  } satisfies Record<keyof KeyServiceServer, unknown>);
  server.addService(AuditServiceService, {
    listAuditEvents: unary('ListAuditEvents', handleListAuditEvents(parts), around),
  } satisfies Partial<AuditServiceServer>);
  server.addService(OrganizationServiceService, {
    getOrganization: unary('GetOrganization', handleGetOrganization(parts), around),
    updateOrganization: unary('UpdateOrganization', handleUpdateOrganization(parts), around),
  } satisfies OrganizationServiceServer);
  const check = { ...AuthorizationService.check, responseSerialize: serializeAnswer };
  server.addService({ ...AuthorizationService, check }, {
    check: unary('Check', handleCheck(parts, around.log), around),
  } satisfies Record<keyof AuthorizationServer, unknown>);
}

function bind(server: GrpcServer, listen: Address, credentials: ServerCredentials): Promise<number> {
  return new Promise((resolve, reject) => {
    server.bindAsync(formatAddress(listen), credentials, (error, port) => {
      if (error) reject(new Error(`cannot listen on ${formatAddress(listen)}: ${error.message}`, { cause: error }));
      else resolve(port);
    });
  });
}

/** Closes at once what is idle, waits for what runs, and cuts off what is left. */
async function shutDown(server: GrpcServer, running: RunningCalls): Promise<void> {
  const over = new AbortController();
  const wait = (ms: number) => sleep(ms, undefined, { signal: over.signal }).catch(() => undefined);
  const closed = new Promise<void>((resolve) => server.tryShutdown(() => resolve()));
  const answered = running.answered();
  await Promise.race([
    Promise.all([closed, answered]),
    // It never closes while a client leaves a request half sent, or reads no answer.
    answered.then(() => wait(FLUSH_MS)),
    wait(FINISH_MS_MAX),
  ]);
  // Answered, they are repeated elsewhere: a client takes a call that breaks off for cancelled, and gives up.
  if (running.cutOff()) await Promise.race([closed, wait(FLUSH_MS)]);
  over.abort();
  server.forceShutdown();
}
