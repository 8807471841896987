/** The command in this process, with a terminal that remembers, and a service that answers what the test says. */
import { Readable, Writable } from 'node:stream';
import { Server, ServerCredentials, type UntypedServiceImplementation } from '@grpc/grpc-js';

import { runCommand } from '../../src/cli/program.js';
import { AuditServiceService } from '../../src/gen/keyreeve/v1/audit_service.js';
import { KeyServiceService } from '../../src/gen/keyreeve/v1/key_service.js';

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
  handlers: { keys?: UntypedServiceImplementation; audit?: UntypedServiceImplementation },
  credentials = ServerCredentials.createInsecure(),
): Promise<FakeService> {
  const server = new Server();
  server.addService(KeyServiceService, handlers.keys ?? {});
  server.addService(AuditServiceService, handlers.audit ?? {});
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
