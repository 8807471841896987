/** A real nginx, run with the configuration that the repository ships as an example. */
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { type Gateway, readdress, runGateway, startUpstream } from './gateway.js';
import { makeGuardedFolder } from './guard.js';
import { getNginx } from './server-programs.js';

const EXAMPLE = fileURLToPath(new URL('../../examples/nginx/', import.meta.url));
const TEMPORARY = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'];

/**
 * Starts the example's nginx with other addresses; resolves once all of its ports accept.
 * @param service where the service listens for HTTP, `host:port`
 * @param change what a test wants otherwise: it is given the text of each of the example's files
 * @throws NoServer where there is no nginx to start
 */
export async function startNginx(service: string, change = (example: string) => example): Promise<Gateway> {
  const command = await getNginx();
  const upstream = await startUpstream();
  const folder = await makeGuardedFolder(join(tmpdir(), 'keyreeve-nginx-'));
  const { ports, replace } = await readdress(service, upstream.port);
  for (const name of await readdir(EXAMPLE)) {
    if (!name.endsWith('.conf')) continue;
    const example = await readFile(join(EXAMPLE, name), 'utf8');
    await writeFile(join(folder.path, name), inFolder(replace(patient(change(example))), folder.path));
  }
  await Promise.all(TEMPORARY.map((name) => mkdir(join(folder.path, name))));
  const own = `daemon off; master_process off; pid ${folder.path}/pid;`;
  const args = ['-p', folder.path, '-c', 'nginx.conf', '-e', 'stderr', '-g', own];
  return runGateway({ command, args }, ports, [upstream, folder]);
}

/** Where a package would have installed it, nothing may be written. */
function inFolder(example: string, folder: string): string {
  const paths = TEMPORARY.map((name) => `${name}_temp_path ${folder}/${name};`);
  return example.replace(/^http \{$/m, `http {\naccess_log off;\n${paths.join('\n')}`);
}

/** A machine that is busy takes longer than a gateway should wait. */
function patient(example: string): string {
  return example.replaceAll(/(_timeout) 1s;/g, '$1 60s;');
}
