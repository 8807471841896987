/** What runs beside the bench: servers that are processes of their own, and on which core each of them runs. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { access, readFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

import { freePort } from '../support/free-port.js';
import { guard } from '../support/guard.js';
import { runCommand } from '../support/run-command.js';

const START_MS_MAX = 30_000;
const PEERS = fileURLToPath(new URL('peers/', import.meta.url));

/** Where a process runs: what is measured, what measures it and serves it, or wherever there is room. */
export type Place = 'server' | 'load' | 'anywhere';

export interface Cores {
  /** In words, for the report. */
  readonly described: string;
  /** All of its threads, and what it starts from then on. */
  readonly pin: (pid: number, place: Place) => Promise<void>;
}

/** The first core for the server that is measured, the second one for all else; where there are two, and taskset. */
export async function divideCores(): Promise<Cores> {
  const has = await runCommand('taskset', ['--version']).then(
    () => true,
    () => false,
  );
  if (!has || availableParallelism() < 2) {
    return { described: 'no process pinned to a core', pin: () => Promise.resolve() };
  }
  const list = (place: Place) => (place === 'anywhere' ? '0,1' : place === 'server' ? '0' : '1');
  return {
    described: 'the server on core 0, the load and what the server asks on core 1',
    async pin(pid, place) {
      await runCommand('taskset', ['-apc', list(place), `${pid}`]);
    },
  };
}

export interface Program<Told> extends AsyncDisposable {
  readonly pid: number;
  readonly told: Told;
}

/**
 * Starts a program of this folder with node; resolves with what its first line tells, which is JSON.
 * @throws Error with what it printed where it ends before
 */
export async function startProgram<Told>(
  cores: Cores,
  place: Place,
  path: string,
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<Program<Told>> {
  const file = fileURLToPath(new URL(path, import.meta.url));
  const child = spawn(process.execPath, [file, ...args], {
    env: { PATH: process.env.PATH, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const end = guarded(child);
  let printed = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => (printed = (printed + text).slice(-4000)));
  try {
    const lines = createInterface(child.stdout);
    const ended = once(child, 'exit').then(() => Promise.reject(new Error('it ended')));
    const [line] = (await Promise.race([
      once(lines, 'line', { signal: AbortSignal.timeout(START_MS_MAX) }),
      ended,
    ])) as [string];
    ended.catch(() => undefined);
    const { pid = 0 } = child;
    await cores.pin(pid, place);
    return { pid, told: JSON.parse(line) as Told, [Symbol.asyncDispose]: end };
  } catch (error) {
    await end();
    throw new Error(`${path} did not start:\n${printed}`, { cause: error });
  }
}

/** A Redis that writes nothing to disk, which favours it. It runs where the bench does. */
export async function startRedis(folder: string): Promise<AsyncDisposable & { readonly port: number }> {
  const port = await freePort();
  const settings = ['--port', `${port}`, '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', '--dir', folder];
  const child = spawn('redis-server', settings, { stdio: 'ignore' });
  const failed = new Promise<never>((_resolve, reject) => {
    child.once('error', reject);
    child.once('exit', () => reject(new Error('redis-server ended')));
  });
  failed.catch(() => undefined);
  const end = guarded(child);
  try {
    while (!(await Promise.race([listens(port), failed]))) await delay(20);
    return { port, [Symbol.asyncDispose]: end };
  } catch (error) {
    await end();
    throw error;
  }
}

/** Installs the peers, exactly as their lockfile says, where that has not been done yet. */
export async function installPeers(say: (line: string) => void): Promise<void> {
  const wanted = await readFile(join(PEERS, 'package-lock.json'), 'utf8');
  const installed = join(PEERS, 'node_modules', '.package-lock.json');
  const isThere = await access(installed).then(
    () => true,
    () => false,
  );
  if (isThere && sameVersions(wanted, await readFile(installed, 'utf8'))) return;
  say('installing the peers');
  await runCommand('npm', ['ci', '--ignore-scripts', '--no-audit', '--no-fund', '--prefix', PEERS]);
}

/** @throws Error that names every program that is missing, and where Debian has it */
export async function checkPrograms(names: Readonly<Record<string, string>>): Promise<void> {
  const missing: string[] = [];
  for (const [name, debian] of Object.entries(names)) {
    await runCommand(name, ['--version']).catch(() => missing.push(`${name} (Debian: ${debian})`));
  }
  if (missing.length > 0) throw new Error(`not installed: ${missing.join(', ')}`);
}

/** @returns what ends it */
function guarded(child: ChildProcess): () => Promise<void> {
  const listed = child.pid === undefined ? undefined : guard({ pid: child.pid });
  child.once('exit', () => listed?.release());
  return async () => {
    if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const exited = once(child, 'exit');
    child.kill('SIGKILL');
    await exited;
  };
}

function listens(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host: '127.0.0.1', port });
    const answer = (does: boolean) => {
      socket.destroy();
      resolve(does);
    };
    socket.once('connect', () => answer(true)).once('error', () => answer(false));
  });
}

function sameVersions(wanted: string, installed: string): boolean {
  const versions = (text: string) => {
    const { packages } = JSON.parse(text) as { packages: Record<string, { version: string; optional?: boolean }> };
    return new Map(Object.entries(packages).map(([place, { version }]) => [place, version]));
  };
  const there = versions(installed);
  return [...versions(wanted)].every(([place, version]) => place === '' || (there.get(place) ?? version) === version);
}
