/** The HTTP port, beside the gRPC one: what gateways, probes and monitoring ask for. */
import { constants } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerOptions, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import type { SecureContextOptions } from 'node:tls';

import type { Access, TlsIdentity } from '../config/access.js';
import { type Address, formatAddress } from '../config/address.js';
import type { RunningCalls } from '../grpc/running-calls.js';
import type { Log } from '../log.js';

/** By path, without the query. Whatever a handler throws before it has answered is answered as a fault of the service. */
export type Routes = Readonly<Record<string, Handler>>;
export type Handler = (request: IncomingMessage, response: ServerResponse) => void | Promise<void>;

export interface HttpServerOptions {
  readonly listen: Address;
  /** With `tls` it listens with that alone; a client's certificate is asked for, and a handler says who needs one. */
  readonly access: Pick<Access, 'tls'>;
  /** What the routes have begun and not answered yet. */
  readonly running: RunningCalls;
}

/** Disposing it closes what is idle, lets running requests finish, and takes 3 seconds at most. */
export interface HttpServer extends AsyncDisposable {
  /** `host:port` as it listens, the port also where any free one was asked for. */
  readonly address: string;
  /** From now on new connections see these certificates. With TLS it was begun, or without. */
  admit(access: Pick<Access, 'tls'>): void;
}

const LIMITS: ServerOptions = {
  // Above what gateways let through themselves; a request that is larger is answered 431.
  maxHeaderSize: 64 * 1024,
  headersTimeout: 10_000,
  requestTimeout: 30_000,
  // Longer than gateways keep a connection that they may use again: the one who closes it should be they.
  keepAliveTimeout: 90_000,
};
/** As long as for the headers. */
const HANDSHAKE_MS_MAX = 10_000;
const FINISH_MS_MAX = 3000;
// For the last answers to leave.
const FLUSH_MS = 500;
const SWEEP_MS = 50;

/** @throws Error where the certificate cannot be used, or that names the address where it cannot listen there */
export async function serveHttp(
  { listen, access: { tls }, running }: HttpServerOptions,
  routes: Routes,
  log: Log,
): Promise<HttpServer> {
  const answer = answerBy(new Map(Object.entries(routes)), log);
  const secured =
    tls &&
    createTlsServer({ ...LIMITS, handshakeTimeout: HANDSHAKE_MS_MAX, ...contextOf(tls), ...clientsOf(tls) }, answer);
  const server = secured ?? createServer(LIMITS, answer);
  // Bounded by their size. Beyond a number they would be dropped, and a gateway's client could hide one so.
  server.maxHeadersCount = 0;
  const connections = connectionsOf(server);
  await listening(server, listen);
  return {
    // It listens on a port: only a pipe has a name.
    address: formatAddress({ ...listen, port: (server.address() as AddressInfo).port }),
    admit(next) {
      if (next.tls) secured?.setSecureContext(contextOf(next.tls));
    },
    [Symbol.asyncDispose]: () => shutDown(server, connections, running),
  };
}

export function answerText(response: ServerResponse, status: number, text: string): void {
  const headers = { 'content-type': 'text/plain; charset=utf-8', 'cache-control': 'no-store' };
  response.writeHead(status, headers).end(text);
}

function answerBy(routes: ReadonlyMap<string, Handler>, log: Log) {
  return (request: IncomingMessage, response: ServerResponse): void => {
    // Nobody waits for a body.
    request.resume();
    const [path = ''] = (request.url ?? '').split('?', 1);
    const handle = routes.get(path);
    if (!handle) {
      answerText(response, 404, `there is nothing here; there is ${[...routes.keys()].join(', ')}\n`);
      return;
    }
    void answered(handle, request, response).catch((error: unknown) => {
      log.error({ err: error, path }, 'an HTTP request failed');
      if (response.headersSent) response.destroy();
      else answerText(response, 500, 'internal error\n');
    });
  };
}

async function answered(handle: Handler, request: IncomingMessage, response: ServerResponse): Promise<void> {
  await handle(request, response);
}

function contextOf({ certificate, privateKey, clientCa }: TlsIdentity): SecureContextOptions {
  return {
    cert: certificate,
    key: privateKey.reveal(),
    ca: clientCa,
    // A client that negotiates anew may show another certificate, and Node leaves the socket `authorized` by the first.
    secureOptions: constants.SSL_OP_NO_RENEGOTIATION,
  };
}

/** Probes have no certificate, and are let in to where nothing is to be learnt. */
function clientsOf({ clientCa }: TlsIdentity) {
  return { requestCert: clientCa !== undefined, rejectUnauthorized: false };
}

/** Those that are open, also before they have said anything: over TLS the server forgets of these until they have. */
function connectionsOf(server: Server): ReadonlySet<Socket> {
  const open = new Set<Socket>();
  server.on('connection', (socket: Socket) => {
    open.add(socket);
    socket.once('close', () => open.delete(socket));
  });
  return open;
}

function listening(server: Server, { host, port }: Address): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (error) =>
      reject(new Error(`cannot listen on ${formatAddress({ host, port })}: ${error.message}`, { cause: error })),
    );
    server.listen(port, host, resolve);
  });
}

/** What comes on an open connection is still answered: a gateway has nobody else to ask, and would turn its client away. */
async function shutDown(server: Server, connections: ReadonlySet<Socket>, running: RunningCalls): Promise<void> {
  server.prependListener('request', (_request, response: ServerResponse) => response.setHeader('connection', 'close'));
  const closed = new Promise<void>((resolve) => server.close(() => resolve()));
  const sweep = setInterval(() => server.closeIdleConnections(), SWEEP_MS);
  const cutOff = setTimeout(() => running.cutOff(), FINISH_MS_MAX - FLUSH_MS);
  const over = setTimeout(() => {
    for (const socket of connections) socket.destroy();
  }, FINISH_MS_MAX);
  await closed;
  clearInterval(sweep);
  clearTimeout(cutOff);
  clearTimeout(over);
}
