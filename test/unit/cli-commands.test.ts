import { Writable } from 'node:stream';
import { type sendUnaryData, type ServerUnaryCall, status } from '@grpc/grpc-js';
import type { Command } from 'commander';
import { expect, test } from 'vitest';

import { exitCodes } from '../../src/cli/exit-codes.js';
import { createProgram } from '../../src/cli/program.js';
import { type ListAuditEventsRequest, ListAuditEventsResponse } from '../../src/gen/keyreeve/v1/audit_service.js';
import { Key, KeyState, RevocationReason } from '../../src/gen/keyreeve/v1/key.js';
import {
  type CreateKeyRequest,
  CreateKeyResponse,
  GetKeyResponse,
  type ListKeysRequest,
  ListKeysResponse,
  type RevokeKeyRequest,
  RevokeKeyResponse,
  type VerifyKeyRequest,
  VerifyKeyResponse,
} from '../../src/gen/keyreeve/v1/key_service.js';
import { Decision } from '../../src/gen/keyreeve/v1/verification.js';
import { fakeService, runCli } from '../support/cli.js';

const CANARY = 'hm_C4naryC4naryC4naryC4naryC4naryC4naryC4nary';
const noon = { seconds: 1_800_000_000n, nanos: 0 };
const key = Key.create({
  keyId: 'key_01',
  keyspace: 'hotmetal',
  organizationId: 'acme',
  name: 'ci',
  display: 'hm_****nary',
  state: KeyState.ACTIVE,
  createTime: noon,
});
const created = CreateKeyResponse.create({ key, credential: { kind: { $case: 'bearerToken', value: CANARY } } });
const organization = ['--keyspace', 'hotmetal', '--organization', 'acme'];

test('a created credential is shown once, on standard output, with the note that it is not shown again', async () => {
  await using service = await serviceThat({ createKey: () => created });
  const { exitCode, stdout, stderr } = await runCli(['keys', 'create', ...organization, '--server', service.address]);
  expect(exitCode).toBe(exitCodes.ok);
  expect(stdout.split(CANARY)).toHaveLength(2);
  expect(stdout).toContain('This is the only time that the credential is shown');
  expect(stderr).toBe('');
});

test('--secret-only prints the secret and nothing else, --json one document with the proto names', async () => {
  await using service = await serviceThat({ createKey: () => created });
  const create = ['keys', 'create', ...organization, '--server', service.address];
  expect((await runCli([...create, '--secret-only'])).stdout).toBe(`${CANARY}\n`);
  expect(JSON.parse((await runCli([...create, '--json'])).stdout)).toMatchObject({
    key: { key_id: 'key_01', organization_id: 'acme', state: 'ACTIVE', create_time: '2027-01-15T08:00:00.000Z' },
    credential: { bearer_token: CANARY },
    replayed: false,
  });
});

test('in pair form the human output has both halves, and --secret-only the secret', async () => {
  const value = { clientId: 'client_01', secret: CANARY };
  const answer = CreateKeyResponse.create({ key, credential: { kind: { $case: 'client', value } } });
  await using service = await serviceThat({ createKey: () => answer });
  const create = ['keys', 'create', ...organization, '--server', service.address];
  expect((await runCli(create)).stdout).toMatch(/client id +client_01\nsecret +hm_C4nary/);
  expect((await runCli([...create, '--secret-only'])).stdout).toBe(`${CANARY}\n`);
});

test('every option of keys create reaches the service', async () => {
  const requests: CreateKeyRequest[] = [];
  await using service = await serviceThat({
    createKey: (request: CreateKeyRequest) => {
      requests.push(request);
      return created;
    },
  });
  const options = '--actor user:ada --permission a --permission b --name ci --type GCP --ttl 1d --scope x --scope y';
  const more = '--label team=billing --label env= --request-id r1';
  const server = ['--server', service.address];
  await runCli(['keys', 'create', ...organization, ...options.split(' '), ...more.split(' '), ...server]);
  expect(requests).toMatchObject([
    {
      keyspace: 'hotmetal',
      organizationId: 'acme',
      actor: { id: 'ada', permissions: ['a', 'b'] },
      requestId: 'r1',
      name: 'ci',
      type: 'GCP',
      expiration: { $case: 'ttl', value: { seconds: 86_400n, nanos: 0 } },
      scopes: ['x', 'y'],
      labels: new Map([
        ['team', 'billing'],
        ['env', ''],
      ]),
    },
  ]);
});

test('a create that meets a service away is retried under the same request id', async () => {
  const requestIds: string[] = [];
  await using service = await serviceThat({
    createKey: ({ requestId }: CreateKeyRequest) => {
      requestIds.push(requestId);
      if (requestIds.length < 3) throw new Refusal(status.UNAVAILABLE);
      return created;
    },
  });
  const { exitCode } = await runCli(['keys', 'create', ...organization, '--server', service.address]);
  expect(exitCode).toBe(exitCodes.ok);
  expect(requestIds).toHaveLength(3);
  expect(new Set(requestIds).size).toBe(1);
  expect(requestIds[0]).toMatch(/^[\da-f-]{36}$/);
});

test('what the service refuses is asked once', async () => {
  let calls = 0;
  await using service = await serviceThat({
    getKey: () => {
      calls += 1;
      throw new Refusal(status.NOT_FOUND);
    },
  });
  const run = await runCli(['keys', 'get', ...organization, '--id', 'key_01', '--server', service.address]);
  expect(run.exitCode).toBe(exitCodes.refused);
  expect(calls).toBe(1);
});

test('a replayed create says how to recover, and --secret-only does not end well with nothing', async () => {
  await using service = await serviceThat({ createKey: () => CreateKeyResponse.create({ key, replayed: true }) });
  const create = ['keys', 'create', ...organization, '--server', service.address];
  const human = await runCli(create);
  expect(human.exitCode).toBe(exitCodes.ok);
  expect(human.stderr).toContain(
    'keyreeve keys rotate --keyspace hotmetal --organization acme --id key_01 --overlap 0\n',
  );
  expect(JSON.parse((await runCli([...create, '--json'])).stdout)).toMatchObject({ credential: null, replayed: true });
  const bare = await runCli([...create, '--secret-only']);
  expect(bare).toMatchObject({ exitCode: exitCodes.refused, stdout: '' });
});

test('a credential that could not be written is said to be lost, with the way out', async () => {
  await using service = await serviceThat({ createKey: () => created });
  const full = new Writable({
    write: (_chunk, _encoding, done) => done(Object.assign(new Error('full'), { code: 'ENOSPC' })),
  });
  full.on('error', () => undefined);
  const run = await runCli(['keys', 'create', ...organization, '--server', service.address], { stdout: full });
  expect(run.exitCode).toBe(exitCodes.internal);
  expect(run.stderr).toContain('key_01 was created, but its credential could not be written; rotate it with overlap 0');
  expect(run.stderr).not.toContain(CANARY);
});

test.each([
  [Decision.VALID, exitCodes.ok],
  [Decision.REVOKED, exitCodes.no],
  [Decision.UNSPECIFIED, exitCodes.no],
  [Number('99'), exitCodes.no],
])('of the decision %i the exit code tells whether to let the request in', async (decision, exitCode) => {
  await using service = await serviceThat({ verifyKey: () => VerifyKeyResponse.create({ decision }) });
  const run = await runCli(['keys', 'verify', '--server', service.address], { stdin: `${CANARY}\n` });
  expect(run.exitCode).toBe(exitCode);
});

test('the secret is read from standard input, less its line break, with the client id beside it in pair form', async () => {
  const requests: VerifyKeyRequest[] = [];
  await using service = await serviceThat({
    verifyKey: (request: VerifyKeyRequest) => {
      requests.push(request);
      return VerifyKeyResponse.create({ decision: Decision.VALID });
    },
  });
  const verify = ['keys', 'verify', '--server', service.address];
  await runCli([...verify, '--scope', 'a', '--organization', 'acme'], { stdin: `${CANARY}\r\n` });
  await runCli([...verify, '--keyspace', 'metal', '--client-id', 'client_01'], { stdin: CANARY });
  expect(requests.map(({ credential }) => credential?.kind)).toEqual([
    { $case: 'bearerToken', value: CANARY },
    { $case: 'client', value: { clientId: 'client_01', secret: CANARY } },
  ]);
  expect(requests[0]).toMatchObject({ keyspace: '', organizationId: 'acme', requiredScopes: ['a'] });
});

test.each([
  { name: 'nothing', stdin: '' },
  { name: 'an empty line', stdin: '\n' },
  { name: 'far too much', stdin: Buffer.alloc(1_000_000, CANARY) },
])('$name on standard input is a usage fault', async ({ stdin }) => {
  const run = await runCli(['keys', 'verify'], { stdin });
  expect(run.exitCode).toBe(exitCodes.usage);
  expect(run.stderr).not.toContain(CANARY);
});

test.each([
  [['keys', 'verify', CANARY]],
  [['keys', CANARY]],
  [[CANARY]],
  [['keys', 'verify', `--secret=${CANARY}`]],
  [['keys', 'verify', '--secret', CANARY]],
  [['keys', 'verify', `--${CANARY}`]],
  [['keys', 'verify', '--server', CANARY]],
  [['keys', 'verify', '--timeout', CANARY]],
  [['keys', 'verify', '--token-file', CANARY]],
  [['keys', 'create', ...organization, '--actor', CANARY]],
  [['keys', 'create', ...organization, '--ttl', CANARY]],
  [['keys', 'create', ...organization, '--expires', CANARY]],
  [['keys', 'create', ...organization, '--label', CANARY]],
  [['keys', 'list', ...organization, '--state', CANARY]],
  [['keys', 'list', ...organization, '--limit', CANARY]],
  [['keys', 'revoke', ...organization, '--reason', CANARY]],
  [['audit', 'list', ...organization, '--after', CANARY]],
  [['callers', 'token', 'x', '--role', CANARY]],
])('a secret put in the wrong place is refused without being repeated (%#)', async (args) => {
  const { exitCode, stdout, stderr } = await runCli(args, { stdin: 'x' });
  expect(exitCode).toBe(exitCodes.usage);
  expect(stdout + stderr).not.toContain('C4nary');
  expect(stderr.trimEnd().split('\n')).toHaveLength(1);
});

test.each([
  { args: ['keys', 'verify', 'x'], hint: '; a credential is read from standard input, never from the command line' },
  { args: ['keys', 'import', 'x'], hint: '; a credential is read from --file, never from the command line' },
  { args: ['peppers', 'nonsense'], hint: '' },
  { args: ['peppers', 'generate', '1', '2'], hint: '' },
  { args: ['keys', 'list', 'x'], hint: '' },
  { args: ['reconcile', 'x'], hint: '' },
])('$args is one argument too many, and of credentials only a command that takes them speaks', async (given) => {
  const required = given.args[0] === 'keys' && given.args[1] !== 'verify' ? [...organization, '--file', 'x'] : [];
  const options = given.args[1] === 'list' ? organization : required;
  const { exitCode, stderr } = await runCli([...given.args, ...options]);
  const path = given.args.filter((word) => /^(keys|verify|import|list|peppers|generate|reconcile)$/.test(word));
  expect(exitCode).toBe(exitCodes.usage);
  expect(stderr).toBe(`keyreeve: too many arguments${given.hint}; see keyreeve ${path.join(' ')} --help\n`);
});

test('the caller token reaches the service and nothing else', async () => {
  const tokens: unknown[] = [];
  await using service = await serviceThat({
    getKey: (_request: unknown, { metadata }: ServerUnaryCall<unknown, unknown>) => {
      tokens.push(...metadata.get('authorization'));
      throw new Refusal(status.UNAUTHENTICATED);
    },
  });
  const env = { KEYREEVE_TOKEN: CANARY, KEYREEVE_SERVER: service.address };
  const run = await runCli(['keys', 'get', ...organization, '--id', 'key_01'], { env });
  expect(tokens).toEqual([`Bearer ${CANARY}`]);
  expect(run.exitCode).toBe(exitCodes.denied);
  expect(run.stdout + run.stderr).not.toContain('C4nary');
});

test('keys list goes through all pages, and --limit stops it', async () => {
  const asked: number[] = [];
  await using service = await serviceThat({
    listKeys: ({ pageSize, pageToken }: ListKeysRequest) => {
      asked.push(pageSize);
      const from = Number(pageToken);
      const keys = Array.from({ length: Math.min(pageSize, 3) }, (_, at) => ({ ...key, keyId: `key_${from + at}` }));
      return ListKeysResponse.create({ keys, nextPageToken: from < 6 ? String(from + keys.length) : '' });
    },
  });
  const list = ['keys', 'list', ...organization, '--server', service.address, '--json'];
  const ids = ({ stdout }: { stdout: string }): string[] =>
    (JSON.parse(stdout) as { key_id: string }[]).map(({ key_id }) => key_id);
  expect(ids(await runCli(list))).toEqual(Array.from({ length: 9 }, (_, at) => `key_${at}`));
  expect(asked).toEqual([500, 500, 500]);
  expect(ids(await runCli([...list, '--limit', '4']))).toEqual(['key_0', 'key_1', 'key_2', 'key_3']);
  expect(asked.slice(3)).toEqual([4, 1]);
});

test('keys list shows people what identifies a key, and names the states to the service', async () => {
  const requests: ListKeysRequest[] = [];
  await using service = await serviceThat({
    listKeys: (request: ListKeysRequest) => {
      requests.push(request);
      const keys = [{ ...key, name: 'evil\u001b[2J\u202e', lastUseTime: noon }, key];
      return ListKeysResponse.create({ keys: requests.length > 1 ? [] : keys });
    },
  });
  const list = ['keys', 'list', ...organization, '--server', service.address];
  const { stdout } = await runCli([...list, '--state', 'active', '--state', 'REVOKED', '--type', 'GCP']);
  expect(stdout.split('\n').map((line) => line.split(/ {2,}/))).toEqual([
    ['NAME', 'KEY ID', 'DISPLAY', 'STATE', 'TYPE', 'CREATED', 'LAST USED', 'EXPIRES'],
    [
      'evil\\u{1b}[2J\\u{202e}',
      'key_01',
      'hm_****nary',
      'active',
      '2027-01-15T08:00:00Z',
      '2027-01-15T08:00:00Z',
      'never',
    ],
    ['ci', 'key_01', 'hm_****nary', 'active', '2027-01-15T08:00:00Z', 'never', 'never'],
    [''],
  ]);
  expect(requests[0]).toMatchObject({ states: [KeyState.ACTIVE, KeyState.REVOKED], types: ['GCP'] });
  expect((await runCli(list)).stdout).toBe('No keys of hotmetal/acme to show.\n');
});

test('keys list tells a superseded key from its successor of the same name', async () => {
  const superseded = { ...key, supersededBy: 'key_02' };
  const keys = [
    { ...key, keyId: 'key_02', rotatedFrom: 'key_01' },
    superseded,
    { ...superseded, state: KeyState.DISABLED },
  ];
  await using service = await serviceThat({ listKeys: () => ListKeysResponse.create({ keys }) });
  const list = ['keys', 'list', ...organization, '--server', service.address];
  const [, ...rows] = (await runCli(list)).stdout.trimEnd().split('\n');
  expect(rows.map((row) => row.split(/ {2,}/)[3])).toEqual(['active', 'active, superseded', 'disabled, superseded']);
  const json = JSON.parse((await runCli([...list, '--json'])).stdout) as { state: string }[];
  expect(json.map(({ state }) => state)).toEqual(['ACTIVE', 'ACTIVE', 'DISABLED']);
});

test('keys get selects by the one option that is given, and there must be one', async () => {
  const selectors: unknown[] = [];
  await using service = await serviceThat({
    getKey: ({ selector }: { selector: unknown }) => {
      selectors.push(selector);
      return GetKeyResponse.create({ key });
    },
  });
  const get = ['keys', 'get', ...organization, '--server', service.address];
  await runCli([...get, '--id', 'a']);
  await runCli([...get, '--name', 'b']);
  await runCli([...get, '--client-id', 'c']);
  expect(selectors).toEqual([
    { selector: { $case: 'keyId', value: 'a' } },
    { selector: { $case: 'name', value: 'b' } },
    { selector: { $case: 'clientId', value: 'c' } },
  ]);
  for (const several of [[], ['--id', 'a', '--name', 'b'], ['--name', 'a', '--client-id', 'b']]) {
    expect((await runCli([...get, ...several])).exitCode).toBe(exitCodes.usage);
  }
});

test('keys revoke tells since when, and whether or until when a replica may still accept the key', async () => {
  const revoked = { ...key, state: KeyState.REVOKED, revokeTime: noon };
  const requests: RevokeKeyRequest[] = [];
  const enforcements = [
    { complete: true, cachesClearTime: noon },
    { complete: false, completeByTime: noon, cachesClearTime: { seconds: 32_503_680_000n, nanos: 0 } },
  ];
  await using service = await serviceThat({
    revokeKey: (request: RevokeKeyRequest) => {
      requests.push(request);
      return RevokeKeyResponse.create({ key: revoked, enforcement: enforcements[requests.length - 1] ?? {} });
    },
  });
  const revoke = ['keys', 'revoke', ...organization, '--id', 'key_01', '--reason', 'compromised', '--detail', 'leaked'];
  const complete = await runCli([...revoke, '--server', service.address]);
  expect(complete.stdout).toContain('Revoked key_01 (ci) of hotmetal/acme at 2027-01-15T08:00:00Z.');
  expect(complete.stdout).toContain('Enforcement: complete.');
  const pending = await runCli([...revoke, '--server', service.address]);
  expect(pending.stdout).toContain('Enforcement: complete by 2027-01-15T08:00:00Z.');
  expect(pending.stdout).toContain('until 3000-01-01T00:00:00Z');
  expect(requests[0]).toMatchObject({ reason: RevocationReason.COMPROMISED, reasonDetail: 'leaked' });
  expect(requests[0]?.requestId).not.toBe(requests[1]?.requestId);
});

test('audit list answers whole events as JSON, and a line each for people', async () => {
  const event = {
    specversion: '1.0',
    type: 'keyreeve.key.created',
    time: '2027-01-15T08:00:00.000Z',
    data: { sequence: 7, caller: 'local', actor: { type: 'USER', id: 'ada' }, key: { key_id: 'key_01', name: 'ci' } },
  };
  const requests: ListAuditEventsRequest[] = [];
  await using service = await fakeService({
    audit: {
      listAuditEvents: (call: ServerUnaryCall<ListAuditEventsRequest, unknown>, answer: sendUnaryData<unknown>) => {
        requests.push(call.request);
        answer(null, ListAuditEventsResponse.create({ events: [{ sequence: 7n, cloudEvent: JSON.stringify(event) }] }));
      },
    },
  });
  const list = ['audit', 'list', ...organization, '--server', service.address];
  const json = await runCli([...list, '--json', '--after', '6', '--type', 'key.created', '--key-id', 'key_01']);
  expect(JSON.parse(json.stdout)).toEqual([event]);
  expect(requests).toMatchObject([{ afterSequence: 6n, types: ['key.created'], keyId: 'key_01' }]);
  const [, row] = (await runCli(list)).stdout.split('\n');
  expect(row?.split(/ {2,}/)).toEqual(['7', event.time, 'key.created', 'ci', 'key_01', 'user:ada', 'local']);
});

test('callers token prints the token alone on standard output, and the line without it beside', async () => {
  const grant = ['--role', 'verifier', '--keyspace', 'metlo', '--organization', '*', '--may-assert-actor'];
  const { exitCode, stdout, stderr } = await runCli(['callers', 'token', 'gateway', ...grant]);
  expect(exitCode).toBe(exitCodes.ok);
  expect(stdout).toMatch(/^\S{40,}\n$/);
  expect(stderr).toContain('name: gateway');
  expect(stderr).toContain('may_assert_actor: true');
  expect(stderr).not.toContain(stdout.trim());
  const json = JSON.parse((await runCli(['callers', 'token', 'gateway', ...grant, '--json'])).stdout) as object;
  expect(Object.keys(json)).toEqual(['name', 'token', 'token_sha256', 'line']);
});

test('a service that is not there is told with its address', async () => {
  const run = await runCli(['keys', 'list', ...organization, '--server', '127.0.0.1:1']);
  expect(run.exitCode).toBe(exitCodes.unavailable);
  expect(run.stderr).toContain('127.0.0.1:1');
});

test('a call that outlasts --timeout ends as unavailable', async () => {
  await using service = await fakeService({ keys: { listKeys: () => undefined } });
  const run = await runCli(['keys', 'list', ...organization, '--server', service.address, '--timeout', '50ms']);
  expect(run.exitCode).toBe(exitCodes.unavailable);
  expect(run.stderr).toContain('--timeout');
});

test('every command has help with an example, and an unknown option is a usage fault', async () => {
  const commands = leavesOf(createProgram({ ...process, env: {} }, () => undefined));
  expect(commands.length).toBeGreaterThan(5);
  for (const path of commands) {
    const help = await runCli([...path, '--help']);
    expect(help.exitCode).toBe(exitCodes.ok);
    expect(help.stdout, path.join(' ')).toMatch(/^Examples?:\n {2}\$ .*keyreeve /m);
    expect((await runCli([...path, '--no-such-option'])).exitCode, path.join(' ')).toBe(exitCodes.usage);
  }
});

test('--version prints the version and ends well', async () => {
  expect(await runCli(['--version'])).toMatchObject({
    exitCode: exitCodes.ok,
    stdout: expect.stringMatching(/^\d+\.\d+\.\d+\n$/) as string,
  });
});

class Refusal extends Error {
  constructor(readonly code: status) {
    super('refused');
  }
}

type Handler = (request: never, call: ServerUnaryCall<unknown, unknown>) => unknown;

/** A key service whose calls these functions answer; a `Refusal` that they throw becomes the status. */
function serviceThat(handlers: Record<string, Handler>): ReturnType<typeof fakeService> {
  const keys = Object.fromEntries(
    Object.entries(handlers).map(([name, handle]) => [
      name,
      (call: ServerUnaryCall<unknown, unknown>, answer: sendUnaryData<unknown>) => {
        try {
          answer(null, handle(call.request as never, call));
        } catch (error) {
          if (!(error instanceof Refusal)) throw error;
          answer({ code: error.code, details: error.message });
        }
      },
    ]),
  );
  return fakeService({ keys });
}

function leavesOf(command: Command, path: string[] = []): string[][] {
  if (command.commands.length === 0) return [path];
  return command.commands.flatMap((child) => leavesOf(child, [...path, child.name()]));
}
