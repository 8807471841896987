/** What only a process of its own shows: signals, pipes, a terminal, what others see of it. */
import { readFile } from 'node:fs/promises';
import { once } from 'node:events';
import { spawn } from 'node:child_process';
import type { sendUnaryData, ServerUnaryCall } from '@grpc/grpc-js';
import { expect, test } from 'vitest';

import { exitCodes } from '../../src/cli/exit-codes.js';
import {
  type CreateKeyRequest,
  ListKeysResponse,
  type VerifyKeyRequest,
  VerifyKeyResponse,
} from '../../src/gen/keyreeve/v1/key_service.js';
import { Key } from '../../src/gen/keyreeve/v1/key.js';
import { Decision } from '../../src/gen/keyreeve/v1/verification.js';
import { COMMAND, fakeService, runBuiltCli, startCli } from '../support/cli.js';

const CANARY = 'hm_C4naryC4naryC4naryC4naryC4naryC4naryC4nary';
const organization = ['--keyspace', 'hotmetal', '--organization', 'acme'];

test('Ctrl-C ends a call that is under way, quietly, and says how to learn what became of it', async () => {
  let reached: (request: CreateKeyRequest) => void;
  const reaching = new Promise<CreateKeyRequest>((resolve) => (reached = resolve));
  await using service = await fakeService({
    keys: { createKey: (call: ServerUnaryCall<CreateKeyRequest, unknown>) => reached(call.request) },
  });
  const { child, ended } = startCli(['keys', 'create', ...organization, '--server', service.address]);
  const { requestId } = await reaching;
  child.kill('SIGINT');
  const { exitCode, stdout, stderr } = await ended;
  expect(exitCode).toBe(exitCodes.interrupted);
  expect(stdout).toBe('');
  expect(stderr).toBe(
    'keyreeve: CANCELLED: interrupted; it may have been carried out all the same: ' +
      `repeat it with --request-id ${requestId} to find out\n`,
  );
});

test('a service that goes away amid a call does not count as Ctrl-C', async () => {
  let reached: () => void;
  const reaching = new Promise<void>((resolve) => (reached = resolve));
  await using service = await fakeService({ keys: { createKey: () => reached() } });
  const { ended } = startCli(['keys', 'create', ...organization, '--server', service.address]);
  await reaching;
  await service[Symbol.asyncDispose]();
  const { exitCode, stderr } = await ended;
  expect(exitCode).toBe(exitCodes.unavailable);
  expect(stderr).toMatch(/^keyreeve: CANCELLED: .*: try again; .* repeat it with --request-id \S+ to find out\n$/);
});

test('a reader that goes away ends the command without a word', async () => {
  const keys = Array.from({ length: 5000 }, (_, at) => Key.create({ keyId: `key_${at}`, name: 'x'.repeat(200) }));
  await using service = await fakeService({
    keys: {
      listKeys: (_call: unknown, answer: sendUnaryData<unknown>) => answer(null, ListKeysResponse.create({ keys })),
    },
  });
  const { child, ended } = startCli(['keys', 'list', ...organization, '--server', service.address]);
  child.stdin.end();
  await once(child.stdout, 'readable');
  child.stdout.destroy();
  expect(await ended).toMatchObject({ exitCode: exitCodes.outputClosed, stderr: '' });
});

test.each([['--help'], ['--version']])('%s into a closed pipe ends without a word', async (option) => {
  const { child, ended } = startCli([option]);
  child.stdout.destroy();
  expect(await ended).toMatchObject({ stderr: '' });
});

test('while it verifies, neither its arguments nor its environment show the secret', async () => {
  let seen = '';
  await using service = await fakeService({
    keys: {
      verifyKey: (_call: unknown, answer: sendUnaryData<unknown>) => {
        void readFile(`/proc/${String(child.pid)}/cmdline`, 'latin1')
          .then(async (args) => (seen = args + (await readFile(`/proc/${String(child.pid)}/environ`, 'latin1'))))
          .then(() => answer(null, VerifyKeyResponse.create({ decision: Decision.NOT_FOUND })));
      },
    },
  });
  const { child, ended } = startCli(['keys', 'verify', '--server', service.address]);
  child.stdin.end(`${CANARY}\n`);
  const { exitCode, stdout, stderr } = await ended;
  expect(exitCode).toBe(exitCodes.no);
  expect(seen).toContain('verify');
  expect(seen + stdout + stderr).not.toContain('C4nary');
});

// Answers the prompt as a person would, in a terminal of its own, and prints all that the terminal showed.
const TYPIST = `
import os, pty, sys
pid, terminal = pty.fork()
if pid == 0:
    os.execv(sys.argv[2], sys.argv[2:])
shown = b''
typed = False
while True:
    try:
        chunk = os.read(terminal, 1024)
    except OSError:
        break
    if not chunk:
        break
    shown += chunk
    if not typed and b'Token: ' in shown:
        os.write(terminal, sys.argv[1].encode() + b'\\r')
        typed = True
sys.stdout.buffer.write(shown)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
`;

test('at a terminal the secret is asked for and not echoed', async () => {
  const presented: unknown[] = [];
  await using service = await fakeService({
    keys: {
      verifyKey: ({ request }: ServerUnaryCall<VerifyKeyRequest, unknown>, answer: sendUnaryData<unknown>) => {
        presented.push(request.credential?.kind?.value);
        answer(null, VerifyKeyResponse.create({ decision: Decision.VALID }));
      },
    },
  });
  const args = [CANARY, process.execPath, COMMAND, 'keys', 'verify', '--server', service.address];
  const python = spawn('python3', ['-c', TYPIST, ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
  let shown = '';
  python.stdout.on('data', (chunk: Buffer) => (shown += chunk.toString()));
  const [exitCode] = (await once(python, 'close')) as [number];
  expect(shown.replaceAll('\r', '')).toBe('Token: \nVALID\n');
  expect(presented).toEqual([CANARY]);
  expect(exitCode).toBe(exitCodes.ok);
});

test('a usage fault leaves standard input unread', async () => {
  const { exitCode, stdout, stderr } = await runBuiltCli(['keys', 'verify', CANARY], { stdin: CANARY });
  expect(exitCode).toBe(exitCodes.usage);
  expect(stdout + stderr).not.toContain('C4nary');
});
