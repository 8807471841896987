/** A real gateway, run with the configuration that the repository ships as an example, before an upstream that echoes. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer, type IncomingMessage } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { text } from 'node:stream/consumers';
import { setTimeout as delay } from 'node:timers/promises';

import { freePort } from './free-port.js';
import { guard } from './guard.js';
import { lastLines } from './run-command.js';

const START_MS_MAX = 60_000;

/** A request as the upstream got it. */
export interface Received {
  readonly method: string;
  readonly url: string;
  /** In lower case, in the order in which they came. */
  readonly headers: readonly (readonly [name: string, value: string])[];
  readonly body: string;
}

export interface HttpResponse {
  readonly status: number;
  /** By name in lower case; those that came more than once joined with a comma and a space. */
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
  /** What the upstream got; absent where it was not asked. */
  readonly received?: Received;
}

export interface Gateway extends AsyncDisposable {
  readonly pid: number;
  /** By product. */
  readonly ports: Readonly<Record<string, number>>;
  /**
   * Sends a GET to a product's port.
   * @param lines of headers, as they are to stand there
   */
  get(product: string, lines?: readonly string[], path?: string): Promise<HttpResponse>;
  /** As `get`, with another method and a body. */
  post(product: string, lines: readonly string[], body: string): Promise<HttpResponse>;
}

/** Where the examples listen. */
const EXAMPLE_PORTS: Readonly<Record<string, number>> = {
  hotmetal: 8101,
  metal: 8102,
  metlo: 8103,
  hookdeploy: 8104,
  hygiara: 8105,
};
const EXAMPLE_KEYREEVE = 8081;
const EXAMPLE_UPSTREAM = 8080;

export interface Readdressed {
  readonly ports: Gateway['ports'];
  /** Puts, into the text of an example's file, the ports that a test has in the place of the example's. */
  readonly replace: (example: string) => string;
}

/** @param service `127.0.0.1:port` */
export async function readdress(service: string, upstreamPort: number): Promise<Readdressed> {
  const ports: Record<string, number> = {};
  const others = new Map([
    [EXAMPLE_KEYREEVE, Number(service.split(':').at(-1))],
    [EXAMPLE_UPSTREAM, upstreamPort],
  ]);
  for (const [product, port] of Object.entries(EXAMPLE_PORTS)) {
    others.set(port, (ports[product] = await freePort()));
  }
  const replace = (example: string) =>
    example.replaceAll(/(?<=127\.0\.0\.1:|\/\/:)\d+/g, (port) => {
      const other = others.get(Number(port));
      if (other === undefined) throw new Error(`the example has a port ${port} that this test does not know`);
      return String(other);
    });
  return { ports, replace };
}

export interface GatewayProgram {
  readonly command: string;
  readonly args: readonly string[];
  /** What is in its environment beside what is in this process's. */
  readonly env?: Readonly<Record<string, string>>;
}

/**
 * Starts the gateway; resolves once all of its ports accept.
 * @param resources disposed with it, or where it does not start
 */
export async function runGateway(
  { command, args, env = {} }: GatewayProgram,
  ports: Readonly<Record<string, number>>,
  resources: readonly AsyncDisposable[],
): Promise<Gateway> {
  const child = spawn(command, args, {
    env: { ...process.env, ...env },
    stdio: ['ignore', 'ignore', 'pipe'],
    detached: true, // Ctrl-C in a terminal is for the test run; it stops its servers itself
  });
  const guarded = child.pid === undefined ? undefined : guard({ pid: child.pid });
  let log = '';
  child.stderr.setEncoding('utf8').on('data', (chunk: string) => (log = (log + chunk).slice(-4000)));
  const ended = once(child, 'close').then(() => {
    throw new Error(`${command} ended: ${lastLines(log, 5)}`);
  });
  ended.catch(() => undefined); // it may end long after anyone waits for it

  async function dispose() {
    child.kill('SIGKILL');
    await ended.catch(() => undefined);
    guarded?.release();
    for (const resource of resources) await resource[Symbol.asyncDispose]();
  }
  try {
    const late = AbortSignal.timeout(START_MS_MAX);
    for (const one of Object.values(ports)) await Promise.race([accepts(one, late), ended]);
  } catch (error) {
    await dispose();
    throw error;
  }
  const send = async (product: string, lines: readonly string[], body = '') => {
    const port = ports[product];
    if (port === undefined) throw new Error(`the example has no port for ${product}`);
    const [first = '', ...others] = lines;
    return toResponse(await exchange(port, [first, 'host: api.example', 'connection: close', ...others], body));
  };
  return {
    pid: child.pid ?? 0,
    ports,
    get: (product, lines = [], path = '/v1/things') => send(product, [`GET ${path} HTTP/1.1`, ...lines]),
    post: (product, lines, body) =>
      send(product, ['POST /v1/things HTTP/1.1', `content-length: ${Buffer.byteLength(body)}`, ...lines], body),
    [Symbol.asyncDispose]: dispose,
  };
}

/** Answers what it received, with rate-limit headers of its own. */
export async function startUpstream(): Promise<AsyncDisposable & { readonly port: number }> {
  const server = createServer((request, response) => {
    void text(request).then((sent) => {
      const body = JSON.stringify(receivedBy(request, sent));
      const own = { ratelimit: '"upstream";r=1', 'x-ratelimit-limit': '1', 'x-ratelimit-remaining': '1' };
      response.writeHead(200, { 'x-from': 'upstream', 'content-length': Buffer.byteLength(body), ...own }).end(body);
    });
  });
  server.maxHeadersCount = 0;
  // A connection that ends after some idle seconds may end just when the gateway sends the next request: that gets a 503.
  server.keepAliveTimeout = 0;
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    port: (server.address() as AddressInfo).port,
    async [Symbol.asyncDispose]() {
      server.close();
      server.closeAllConnections();
      await once(server, 'close');
    },
  };
}

function receivedBy({ method = '', url = '', rawHeaders }: IncomingMessage, body: string): Received {
  const headers = rawHeaders.flatMap((name, at) =>
    at % 2 === 0 ? [[name.toLowerCase(), rawHeaders[at + 1] ?? ''] as const] : [],
  );
  return { method, url, headers, body };
}

/**
 * Sends the lines as they are, a character for each byte, so that also what no client library sends can be sent.
 * @returns all that comes until the connection closes; empty where there is none
 */
export async function exchange(port: number, lines: readonly string[], body = ''): Promise<string> {
  const socket = connect(port, '127.0.0.1');
  socket.write(Buffer.from(`${lines.join('\r\n')}\r\n\r\n${body}`, 'latin1'));
  const chunks: Buffer[] = [];
  // It may reset the connection once it has refused what is too long to read.
  socket.on('data', (chunk: Buffer) => chunks.push(chunk)).on('error', () => undefined);
  await new Promise((resolve) => socket.once('close', resolve));
  return Buffer.concat(chunks).toString('utf8');
}

export function toResponse(answer: string): HttpResponse {
  const end = answer.indexOf('\r\n\r\n');
  const [first = '', ...lines] = answer.slice(0, end).split('\r\n');
  const headers: Record<string, string> = {};
  for (const line of lines) {
    const [, given = '', value = ''] = /^([^:]+): ?(.*)$/.exec(line) ?? [];
    const name = given.toLowerCase();
    headers[name] = headers[name] === undefined ? value : `${headers[name]}, ${value}`;
  }
  const body = answer.slice(end + 4);
  const received = headers['x-from'] === 'upstream' ? (JSON.parse(body) as Received) : undefined;
  return { status: Number(/^HTTP\/1\.1 (\d+)/.exec(first)?.[1]), headers, body, ...(received && { received }) };
}

async function accepts(port: number, late: AbortSignal): Promise<void> {
  for (;;) {
    late.throwIfAborted();
    const socket = connect(port, '127.0.0.1');
    const connected = await once(socket, 'connect').then(
      () => true,
      () => false, // not yet
    );
    socket.destroy();
    if (connected) return;
    await delay(20);
  }
}
