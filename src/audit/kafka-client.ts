/**
 * kafkajs, with what it lacks made up for. Its disconnect can hang, after some time-outs it never reconnects, and it
 * measures time-outs by the wall clock. So whoever uses it sets a timer of his own and, when that goes off, drops the
 * client whole: `close` destroys its sockets, and what was still to be sent through them is not sent later, out of turn.
 */
import { readFileSync } from 'node:fs';
import { type Socket, connect, isIP } from 'node:net';
import { connect as connectTls, type SecureContextOptions } from 'node:tls';
import { Kafka, type KafkaConfig, type LogEntry, logLevel, type SASLOptions } from 'kafkajs';
import type { Logger } from 'pino';
import type { Secret } from '../keys/secret.js';
import { within } from '../within.js';

export interface KafkaSettings extends KafkaAccess {
  readonly topic: string;
  /** For development: accept a topic that one broker carries alone. */
  readonly allowSingleBroker: boolean;
}

/** Where the brokers are, and how one gets in. */
export interface KafkaAccess {
  /** `host:port`, one at least. */
  readonly brokers: readonly string[];
  /** PEM files, read whenever a client is made. Absent: without TLS. */
  readonly tls?: {
    readonly caFile?: string;
    readonly client?: { readonly certFile: string; readonly keyFile: string };
  };
  /** Absent: without a login. */
  readonly sasl?: {
    readonly mechanism: 'plain' | 'scram-sha-256' | 'scram-sha-512';
    readonly username: string;
    readonly password: Secret;
  };
}

/** Something of kafkajs that connects and disconnects: a producer, a consumer, an admin. */
interface Connected {
  disconnect(): Promise<void>;
}

export interface KafkaClient {
  readonly kafka: Kafka;
  /** Disconnects in good order if that is quick, and leaves nothing open in any case. Never rejects. */
  close(connected: Connected): Promise<void>;
  /** Cuts every connection off at once: nothing more is sent or received. Never rejects. */
  drop(connected: Connected): Promise<void>;
}

const CONNECTION_MS = 2000;
const REQUEST_MS = 5000;
const KEEP_ALIVE_MS = 60_000;
const DISCONNECT_MS = 500;

/**
 * @param retries how often kafkajs tries to find a broker that answers its question, beyond one try each. Producers are
 *   told not to retry.
 */
export function createKafkaClient({ brokers, tls, sasl }: KafkaAccess, log: Logger, { retries = 0 } = {}): KafkaClient {
  const sockets = new Set<Socket>();
  const secure = tls && contextOf(tls);
  let closed = false;
  const socketFactory: KafkaConfig['socketFactory'] = ({ host, port, onConnect }) => {
    if (closed) throw new Error('the client is closed');
    // An address is no server name: https://datatracker.ietf.org/doc/html/rfc6066#section-3
    const named = isIP(host) ? {} : { servername: host };
    const opened = secure
      ? connectTls({ host, port, ...named, ...secure }, onConnect)
      : connect({ host, port }, onConnect);
    const socket = opened.setKeepAlive(true, KEEP_ALIVE_MS).setNoDelay(true);
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
    return socket;
  };
  const kafka = new Kafka({
    clientId: 'keyreeve',
    brokers: [...brokers],
    ...(tls && { ssl: true }),
    ...(sasl && { sasl: toSasl(sasl) }),
    connectionTimeout: CONNECTION_MS,
    requestTimeout: REQUEST_MS,
    retry: { retries: brokers.length + retries, initialRetryTime: 50, maxRetryTime: 1000 },
    socketFactory,
    logLevel: logLevel.INFO,
    logCreator: () => (entry) => writeLog(log, entry),
  });
  function cut() {
    closed = true;
    for (const socket of sockets) socket.destroy(new Error('the client is closed'));
  }
  async function disconnect(connected: Connected) {
    // Where it fails or hangs, cutting the sockets does what is needed.
    await within(DISCONNECT_MS, connected.disconnect()).catch(() => undefined);
  }
  return {
    kafka,
    async close(connected) {
      await disconnect(connected);
      cut();
    },
    async drop(connected) {
      cut();
      await disconnect(connected);
    },
  };
}

function contextOf({ caFile, client }: NonNullable<KafkaAccess['tls']>): SecureContextOptions {
  return {
    ...(caFile !== undefined && { ca: readFileSync(caFile) }),
    ...(client && { cert: readFileSync(client.certFile), key: readFileSync(client.keyFile) }),
  };
}

function toSasl({ mechanism, username, password }: NonNullable<KafkaAccess['sasl']>): SASLOptions {
  return { mechanism, username, password: password.reveal() };
}

/**
 * What kafkajs calls an error is one failed try, and reaches the caller as a rejection too: so it is written one level
 * below. Named fields only: others may hold payloads.
 */
function writeLog(log: Logger, { level, namespace, log: { message, ...others } }: LogEntry): void {
  const extra: Record<string, unknown> = others;
  const fields = {
    kafkajs: namespace,
    ...Object.fromEntries(['broker', 'error', 'groupId', 'retryCount'].map((name) => [name, extra[name]])),
  };
  if (level === logLevel.ERROR || level === logLevel.WARN) log.debug(fields, `kafkajs: ${message}`);
  else log.trace(fields, `kafkajs: ${message}`);
}
