/** A real Envoy, run with the configuration that the repository ships as an example, before an upstream that echoes. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile, writeFile } from 'node:fs/promises';
import { createServer, type IncomingMessage } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { parse } from 'yaml';

import { freePort } from './free-port.js';
import { guard, makeGuardedFolder } from './guard.js';
import { lastLines } from './run-command.js';
import { getEnvoy } from './server-programs.js';

const EXAMPLE = new URL('../../examples/envoy/envoy.yaml', import.meta.url);
const START_MS_MAX = 60_000;

/** What of the configuration a test replaces. */
interface EnvoyConfig {
  static_resources: {
    listeners: { name: string; address: { socket_address: Address } }[];
    clusters: {
      name: string;
      load_assignment: { endpoints: { lb_endpoints: { endpoint: { address: { socket_address: Address } } }[] }[] };
    }[];
  };
}

interface Address {
  address: string;
  port_value: number;
}

/** A request as the upstream got it. */
export interface Received {
  readonly method: string;
  readonly url: string;
  /** In lower case, in the order in which they came. */
  readonly headers: readonly (readonly [name: string, value: string])[];
}

export interface HttpResponse {
  readonly status: number;
  /** By name in lower case; those that came more than once joined with a comma and a space. */
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
  /** What the upstream got; absent where it was not asked. */
  readonly received?: Received;
}

export interface Envoy extends AsyncDisposable {
  readonly pid: number;
  /** By listener. */
  readonly ports: Readonly<Record<string, number>>;
  /**
   * Sends a GET to a listener.
   * @param lines of headers, as they are to stand there
   */
  get(listener: string, lines?: readonly string[], path?: string): Promise<HttpResponse>;
}

/**
 * Starts the example's Envoy with other addresses; resolves once all of its listeners accept.
 * @param service where the service listens, `host:port`
 * @param change what a test wants otherwise: it is given the text of the example
 * @param env what is in its environment beside what is in this process's
 * @throws NoServer where there is no Envoy to start
 */
export async function startEnvoy(
  service: string,
  change = (example: string) => example,
  env: Readonly<Record<string, string>> = {},
): Promise<Envoy> {
  const binary = await getEnvoy();
  const upstream = await startUpstream();
  const folder = await makeGuardedFolder(join(tmpdir(), 'keyreeve-envoy-'));
  // Aliases become copies, as they are for Envoy.
  const config = JSON.parse(JSON.stringify(parse(patient(change(await readFile(EXAMPLE, 'utf8')))))) as EnvoyConfig;
  const { listeners, clusters } = config.static_resources;
  const ports: Record<string, number> = {};
  for (const { name, address } of listeners) {
    ports[name] = address.socket_address.port_value = await freePort();
  }
  const [, host = '', port = ''] = /^(.*):(\d+)$/.exec(service) ?? [];
  const targets: Record<string, Address> = {
    keyreeve: { address: host, port_value: Number(port) },
    upstream: { address: '127.0.0.1', port_value: upstream.port },
  };
  for (const { name, load_assignment } of clusters) {
    const endpoint = load_assignment.endpoints[0]?.lb_endpoints[0]?.endpoint;
    const target = targets[name];
    if (!endpoint || !target) throw new Error(`the example has a cluster ${name} that this test does not know`);
    endpoint.address.socket_address = target;
  }
  const file = join(folder.path, 'envoy.json');
  await writeFile(file, JSON.stringify(config));

  const args = ['--config-path', file, '--concurrency', '1', '--disable-hot-restart', '--log-level', 'warning'];
  const child = spawn(binary, args, {
    env: { ...process.env, ...env },
    stdio: ['ignore', 'ignore', 'pipe'],
    detached: true, // Ctrl-C in a terminal is for the test run; it stops its servers itself
  });
  const guarded = child.pid === undefined ? undefined : guard({ pid: child.pid });
  let log = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => (log = (log + text).slice(-4000)));
  const ended = once(child, 'close').then(() => {
    throw new Error(`envoy ended: ${lastLines(log, 5)}`);
  });
  ended.catch(() => undefined); // it may end long after anyone waits for it

  async function dispose() {
    child.kill('SIGKILL');
    await ended.catch(() => undefined);
    guarded?.release();
    await upstream[Symbol.asyncDispose]();
    await folder[Symbol.asyncDispose]();
  }
  try {
    const late = AbortSignal.timeout(START_MS_MAX);
    for (const one of Object.values(ports)) await Promise.race([accepts(one, late), ended]);
  } catch (error) {
    await dispose();
    throw error;
  }
  return {
    pid: child.pid ?? 0,
    ports,
    async get(listener, lines = [], path = '/v1/things') {
      const to = ports[listener];
      if (to === undefined) throw new Error(`the example has no listener ${listener}`);
      return toResponse(
        await exchange(to, ['GET ' + path + ' HTTP/1.1', 'host: api.example', 'connection: close', ...lines]),
      );
    },
    [Symbol.asyncDispose]: dispose,
  };
}

/** A machine that is busy takes longer than a gateway should wait. */
function patient(example: string): string {
  return example.replace(/^( +)timeout: 1s$/m, '$1timeout: 60s');
}

/** Answers what it received, with rate-limit headers of its own. */
async function startUpstream(): Promise<AsyncDisposable & { readonly port: number }> {
  const server = createServer((request, response) => {
    const body = JSON.stringify(receivedBy(request));
    const own = { ratelimit: '"upstream";r=1', 'x-ratelimit-limit': '1', 'x-ratelimit-remaining': '1' };
    response.writeHead(200, { 'x-from': 'upstream', 'content-length': Buffer.byteLength(body), ...own }).end(body);
  });
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

function receivedBy({ method = '', url = '', rawHeaders }: IncomingMessage): Received {
  const headers = rawHeaders.flatMap((name, at) =>
    at % 2 === 0 ? [[name.toLowerCase(), rawHeaders[at + 1] ?? ''] as const] : [],
  );
  return { method, url, headers };
}

/** The lines as they are, a character for each byte, so that also what no client library sends can be sent. */
async function exchange(port: number, lines: readonly string[]): Promise<string> {
  const socket = connect(port, '127.0.0.1');
  socket.write(Buffer.from(`${lines.join('\r\n')}\r\n\r\n`, 'latin1'));
  const chunks: Buffer[] = [];
  // It may reset the connection once it has refused what is too long to read.
  socket.on('data', (chunk: Buffer) => chunks.push(chunk)).on('error', () => undefined);
  await once(socket, 'close');
  return Buffer.concat(chunks).toString('utf8');
}

function toResponse(text: string): HttpResponse {
  const end = text.indexOf('\r\n\r\n');
  const [first = '', ...lines] = text.slice(0, end).split('\r\n');
  const headers: Record<string, string> = {};
  for (const line of lines) {
    const [, name = '', value = ''] = /^([^:]+): ?(.*)$/.exec(line) ?? [];
    headers[name] = headers[name] === undefined ? value : `${headers[name]}, ${value}`;
  }
  const body = text.slice(end + 4);
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
