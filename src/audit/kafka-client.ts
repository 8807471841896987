/**
 * kafkajs, with what it lacks made up for. Its disconnect can hang, after some time-outs it never reconnects, and it
 * measures time-outs by the wall clock. So whoever uses it sets a timer of his own and, when that goes off, drops the
 * client whole: `close` destroys its sockets, and what was still to be sent through them is not sent later, out of turn.
 */
import { type Socket, connect } from 'node:net';
import { Kafka, type KafkaConfig, type LogEntry, logLevel } from 'kafkajs';
import type { Logger } from 'pino';
import { within } from '../within.js';

export interface KafkaSettings {
  /** `host:port`, one at least. */
  readonly brokers: readonly string[];
  readonly topic: string;
  /** For development: accept a topic that one broker carries alone. */
  readonly allowSingleBroker: boolean;
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
export function createKafkaClient(
  { brokers }: Pick<KafkaSettings, 'brokers'>,
  log: Logger,
  { retries = 0 } = {},
): KafkaClient {
  const sockets = new Set<Socket>();
  let closed = false;
  const socketFactory: KafkaConfig['socketFactory'] = ({ host, port, onConnect }) => {
    if (closed) throw new Error('the client is closed');
    const socket = connect({ host, port }, onConnect).setKeepAlive(true, KEEP_ALIVE_MS).setNoDelay(true);
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
    return socket;
  };
  const kafka = new Kafka({
    clientId: 'keyreeve',
    brokers: [...brokers],
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
