/** A real Envoy, run with the configuration that the repository ships as an example, before an upstream that echoes. */
import { readFile, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parse } from 'yaml';

import { freePort } from './free-port.js';
import { type Gateway, runGateway, startUpstream } from './gateway.js';
import { makeGuardedFolder } from './guard.js';
import { getEnvoy } from './server-programs.js';

const EXAMPLE = new URL('../../examples/envoy/envoy.yaml', import.meta.url);

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
): Promise<Gateway> {
  const command = await getEnvoy();
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
  return runGateway({ command, args, env }, ports, [upstream, folder]);
}

/** A machine that is busy takes longer than a gateway should wait. */
function patient(example: string): string {
  return example
    .replaceAll(/^( +(?:connect_)?timeout): 1s$/gm, '$1: 60s')
    .replace('max_interval: 1s', 'max_interval: 60s');
}
