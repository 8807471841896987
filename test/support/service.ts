/** The service as built and as an operator runs it: a process of its own, which a test can stop and kill. */
import { type ChildProcess, spawn, type SpawnOptions } from 'node:child_process';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { credentials } from '@grpc/grpc-js';

import { AuditServiceClient } from '../../src/gen/keyreeve/v1/audit_service.js';
import { KeyServiceClient } from '../../src/gen/keyreeve/v1/key_service.js';
import { guard, makeGuardedFolder } from './guard.js';

const COMMAND = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));
const START_MS_MAX = 30_000;
const RECONNECT_SOON = { 'grpc.initial_reconnect_backoff_ms': 50, 'grpc.max_reconnect_backoff_ms': 200 };

export interface Service extends AsyncDisposable {
  /** `host:port`, the same after a restart. */
  readonly address: string;
  /** Of its HTTP port, as it was last started. */
  readonly httpAddress: string;
  readonly pid: number;
  readonly running: boolean;
  /** The folder it was given as its data folder. */
  readonly dataDir: string;
  readonly keys: KeyServiceClient;
  readonly audit: AuditServiceClient;
  /** All that it has written to standard output and standard error, over all its starts. */
  output(): string;
  /** The lines of its output that hold these words. */
  linesWith(words: string): string[];
  /** As an operator stops it: SIGTERM. Answers the exit code, or the signal that ended it. */
  stop(): Promise<number | string>;
  /** As a crash ends it: SIGKILL. */
  kill(): Promise<void>;
  restart(): Promise<void>;
  /** Writes a line to its standard input. */
  tell(line: string): void;
  /** Resolves once the process has ended, however that comes about. */
  ended(): Promise<void>;
}

export interface ServiceOptions extends Pick<SpawnOptions, 'cwd' | 'uid' | 'gid'> {
  /** What node runs in the place of the built command. */
  readonly program?: readonly string[];
}

/** Where and how the service runs, beyond the defaults. */
export type ServiceSettings = Readonly<Record<`KEYREEVE_${string}`, string>>;

/**
 * Starts the built service on a free port with a new data folder; resolves once it serves.
 * @throws Error with what it printed where it does not come up
 */
export async function startService(
  settings: ServiceSettings = {},
  { program = [COMMAND, 'serve'], ...where }: ServiceOptions = {},
): Promise<Service> {
  const folder = await makeGuardedFolder(join(tmpdir(), 'keyreeve-service-'));
  const dataDir = join(folder.path, 'data');
  const output: string[] = [];
  let listen = '127.0.0.1:0';
  let httpListen: string | undefined;
  let child: ChildProcess | undefined;
  let clients: { keys: KeyServiceClient; audit: AuditServiceClient } | undefined;

  async function start(): Promise<void> {
    child = spawn(process.execPath, program, {
      env: { PATH: process.env.PATH, KEYREEVE_LISTEN: listen, KEYREEVE_DATA_DIR: dataDir, ...settings },
      stdio: ['pipe', 'pipe', 'pipe'],
      ...where,
    });
    // It may be gone before it has read everything.
    child.stdin?.on('error', () => undefined);
    if (child.pid !== undefined) {
      const guarded = guard({ pid: child.pid });
      child.once('exit', () => guarded.release());
    }
    ({ address: listen, http_address: httpListen } = await serving(child, output));
    clients ??= {
      keys: new KeyServiceClient(listen, credentials.createInsecure(), RECONNECT_SOON),
      audit: new AuditServiceClient(listen, credentials.createInsecure(), RECONNECT_SOON),
    };
  }
  async function end(signal: 'SIGTERM' | 'SIGKILL'): Promise<number | string> {
    const ending = running();
    if (ending.exitCode !== null) return ending.exitCode;
    if (ending.signalCode !== null) return ending.signalCode;
    const exited = once(ending, 'exit') as Promise<[number | null, string | null]>;
    ending.kill(signal);
    const [code, signalName] = await exited;
    return code ?? signalName ?? 'unknown';
  }
  function running(): ChildProcess {
    if (!child) throw new Error('the service was never started');
    return child;
  }
  function client(): NonNullable<typeof clients> {
    if (!clients) throw new Error('the service was never started');
    return clients;
  }

  try {
    await start();
  } catch (error) {
    await folder[Symbol.asyncDispose]();
    throw error;
  }
  return {
    get address() {
      return listen;
    },
    get httpAddress() {
      if (httpListen === undefined) throw new Error('the service was started without KEYREEVE_HTTP_LISTEN');
      return httpListen;
    },
    get pid() {
      return running().pid ?? 0;
    },
    get running() {
      const { exitCode, signalCode } = running();
      return exitCode === null && signalCode === null;
    },
    dataDir,
    get keys() {
      return client().keys;
    },
    get audit() {
      return client().audit;
    },
    output: () => output.join('\n'),
    linesWith: (words) => output.filter((line) => line.includes(words)),
    stop: () => end('SIGTERM'),
    async kill() {
      await end('SIGKILL');
    },
    restart: start,
    tell: (line) => void running().stdin?.write(`${line}\n`),
    async ended() {
      const ending = running();
      if (ending.exitCode === null && ending.signalCode === null) await once(ending, 'exit');
    },
    async [Symbol.asyncDispose]() {
      clients?.keys.close();
      clients?.audit.close();
      await end('SIGKILL');
      await folder[Symbol.asyncDispose]();
    },
  };
}

interface Serving {
  readonly address: string;
  readonly http_address?: string;
}

/** Gathers the process's output, and resolves with the addresses once it says that it serves. */
async function serving(child: ChildProcess, output: string[]): Promise<Serving> {
  const { stdout, stderr } = child;
  if (!stdout || !stderr) throw new Error('the service has no output');
  return new Promise((resolve, reject) => {
    const late = setTimeout(() => {
      child.kill('SIGKILL');
      reject(new Error(`the service did not start in time:\n${output.join('\n')}`));
    }, START_MS_MAX);
    child.once('exit', (code) => {
      clearTimeout(late);
      reject(new Error(`the service ended with ${String(code)} instead of serving:\n${output.join('\n')}`));
    });
    createInterface(stderr).on('line', (line) => output.push(line));
    createInterface(stdout).on('line', (line) => {
      output.push(line);
      if (!line.includes('"message":"serving"')) return;
      clearTimeout(late);
      resolve(JSON.parse(line) as Serving);
    });
  });
}
