/** A real Caddy, run with the configuration that the repository ships as an example. */
import { readFile, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { type Gateway, readdress, runGateway, startUpstream } from './gateway.js';
import { makeGuardedFolder } from './guard.js';
import { getCaddy } from './server-programs.js';

const EXAMPLE = new URL('../../examples/caddy/Caddyfile', import.meta.url);

/**
 * Starts the example's Caddy with other addresses; resolves once all of its ports accept.
 * @param service where the service listens for HTTP, `host:port`
 * @param change what a test wants otherwise: it is given the text of the example
 * @param env what is in its environment beside what is in this process's
 * @throws NoServer where there is no Caddy to start
 */
export async function startCaddy(
  service: string,
  change = (example: string) => example,
  env: Readonly<Record<string, string>> = {},
): Promise<Gateway> {
  const command = await getCaddy();
  const upstream = await startUpstream();
  const folder = await makeGuardedFolder(join(tmpdir(), 'keyreeve-caddy-'));
  const { ports, replace } = await readdress(service, upstream.port);
  const file = join(folder.path, 'Caddyfile');
  await writeFile(file, replace(patient(change(await readFile(EXAMPLE, 'utf8')))));
  const args = ['run', '--config', file, '--adapter', 'caddyfile'];
  const home = { HOME: folder.path, XDG_DATA_HOME: folder.path, XDG_CONFIG_HOME: folder.path };
  return runGateway({ command, args, env: { ...home, ...env } }, ports, [upstream, folder]);
}

/** A machine that is busy takes longer than a gateway should wait. */
function patient(example: string): string {
  return example.replaceAll(/(_timeout) 1s$/gm, '$1 60s');
}
