/** The command in this process or in one of its own, and a service that answers what the test says. */
import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { once } from 'node:events';
import { Readable, Writable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { Server, ServerCredentials, type UntypedServiceImplementation } from '@grpc/grpc-js';

import { runCommand } from '../../src/cli/program.js';
import { HealthService } from '../../src/gen/health/v1/health.js';
import { AuditServiceService } from '../../src/gen/keyreeve/v1/audit_service.js';
import { KeyServiceService } from '../../src/gen/keyreeve/v1/key_service.js';
import { OrganizationServiceService } from '../../src/gen/keyreeve/v1/organization_service.js';
import { guard } from './guard.js';

export const COMMAND = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));

export interface Run {
  exitCode: number;
  stdout: string;
  stderr: string;
}

/** Runs one command to its end. */
export async function runCli(
  args: readonly string[],
  { stdin = '', env = {}, stdout }: { stdin?: string | Buffer; env?: NodeJS.ProcessEnv; stdout?: Writable } = {},
): Promise<Run> {
  const written = { stdout: '', stderr: '' };
  const remember = (name: keyof typeof written): Writable =>
    new Writable({
      write(chunk: Buffer, _encoding, done) {
        written[name] += chunk.toString();
        done();
      },
    });
  const exitCode = await runCommand(args, {
    stdin: Readable.from(stdin.length > 0 ? [stdin] : []),
    stdout: stdout ?? remember('stdout'),
    stderr: remember('stderr'),
    env,
  });
  return { exitCode, ...written };
}

export interface FakeService extends AsyncDisposable {
  readonly address: string;
}

/** A service on loopback with these handlers; every other call answers UNIMPLEMENTED. */
export async function fakeService(
  handlers: Partial<Record<'keys' | 'audit' | 'organizations' | 'health', UntypedServiceImplementation>>,
  credentials = ServerCredentials.createInsecure(),
): Promise<FakeService> {
  const server = new Server();
  server.addService(KeyServiceService, handlers.keys ?? {});
  server.addService(AuditServiceService, handlers.audit ?? {});
  server.addService(OrganizationServiceService, handlers.organizations ?? {});
  server.addService(HealthService, handlers.health ?? {});
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync('127.0.0.1:0', credentials, (error, bound) => {
      if (error) reject(error);
      else resolve(bound);
    });
  });
  return {
    address: `127.0.0.1:${port}`,
    [Symbol.asyncDispose]() {
      server.forceShutdown();
      return Promise.resolve();
    },
  };
}

export interface RunningCli {
  readonly child: ChildProcessByStdio<Writable, Readable, Readable>;
  /** Everything that it wrote, once it has ended; `exitCode` is null when a signal ended it. */
  readonly ended: Promise<{ exitCode: number | null; signal: NodeJS.Signals | null; stdout: string; stderr: string }>;
}

/** Starts the command as built, in a process of its own. Its standard input stays open until the test ends it. */
export function startCli(args: readonly string[], env: NodeJS.ProcessEnv = {}): RunningCli {
  const child = spawn(process.execPath, [COMMAND, ...args], {
    env: { PATH: process.env.PATH, ...env },
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  const guarded = child.pid === undefined ? undefined : guard({ pid: child.pid });
  // A command that ends without reading its input must not fail the test that writes it.
  child.stdin.on('error', () => undefined);
  const written = { stdout: '', stderr: '' };
  child.stdout.on('data', (chunk: Buffer) => (written.stdout += chunk.toString()));
  child.stderr.on('data', (chunk: Buffer) => (written.stderr += chunk.toString()));
  const ended = once(child, 'close').then(([exitCode, signal]) => {
    guarded?.release();
    return { exitCode: exitCode as number | null, signal: signal as NodeJS.Signals | null, ...written };
  });
  return { child, ended };
}

/** Runs the command as built to its end. */
export async function runBuiltCli(
  args: readonly string[],
  { stdin = '', env = {} }: { stdin?: string; env?: NodeJS.ProcessEnv } = {},
): Promise<Awaited<RunningCli['ended']>> {
  const { child, ended } = startCli(args, env);
  child.stdin.end(stdin);
  return await ended;
}
