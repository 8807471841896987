/** keys import: what a line may say, and what becomes of it. */
import { createHash } from 'node:crypto';
import { chmod, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable, Writable } from 'node:stream';
import { type sendUnaryData, type ServerUnaryCall, status } from '@grpc/grpc-js';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { isFailure, parseImportLine } from '../../src/cli/commands/import-line.js';
import { readLines } from '../../src/cli/commands/read-lines.js';
import { exitCodes } from '../../src/cli/exit-codes.js';
import { runCommand } from '../../src/cli/program.js';
import { Failure } from '../../src/gen/keyreeve/v1/failure.js';
import { Key } from '../../src/gen/keyreeve/v1/key.js';
import { ImportKeysRequest, type ImportKeysResponse, ImportKeysResult } from '../../src/gen/keyreeve/v1/key_service.js';
import { fakeService, runCli } from '../support/cli.js';
import { type GuardedFolder, makeGuardedFolder } from '../support/guard.js';

const CANARY = 'hm_C4naryC4naryC4naryC4naryC4naryC4naryC4nary';
const digestOf = (text: string) => createHash('sha256').update(text).digest();
const DIGEST = digestOf('a').toString('hex');
const keyspace = ['--keyspace', 'hotmetal'];
const toAcme = [...keyspace, '--organization', 'acme'];

let folder: GuardedFolder;
beforeAll(async () => {
  folder = await makeGuardedFolder(join(tmpdir(), 'keyreeve-import-'));
});
afterAll(async () => {
  await folder[Symbol.asyncDispose]();
});

describe('a line', () => {
  const parse = (line: object | string | Buffer, organizationId?: string) => {
    const text = typeof line === 'string' || Buffer.isBuffer(line) ? line : JSON.stringify(line);
    return parseImportLine(Buffer.from(text as string), organizationId);
  };

  test('may say everything that the API takes', () => {
    const line = {
      organization: 'acme',
      digest: DIGEST,
      client_id: 'c1',
      name: 'ci',
      type: 'GCP',
      display: 'hm_****abcd',
      scopes: ['a', 'b'],
      labels: { team: 'infra', env: '' },
      create_time: '2020-01-01T00:00:00Z',
      expire_time: '2027-01-15T09:00:00.25+01:00',
      last_use_time: '2026-01-01T00:00:00Z',
      disabled: true,
    };
    expect(parse(line)).toEqual({
      organizationId: 'acme',
      item: {
        secret: { $case: 'digest', value: digestOf('a') },
        clientId: 'c1',
        name: 'ci',
        type: 'GCP',
        display: 'hm_****abcd',
        scopes: ['a', 'b'],
        labels: new Map([
          ['team', 'infra'],
          ['env', ''],
        ]),
        createTime: { seconds: 1_577_836_800n, nanos: 0 },
        expireTime: { seconds: 1_800_000_000n, nanos: 250_000_000 },
        lastUseTime: { seconds: 1_767_225_600n, nanos: 0 },
        disabled: true,
      },
    });
  });

  test.each([
    ['hexadecimal', { digest: DIGEST.toUpperCase() }],
    ['base64', { digest: digestOf('a').toString('base64') }],
    ['base64 without padding', { digest: digestOf('a').toString('base64').slice(0, 43) }],
    ['base64 for URLs', { digest: digestOf('a').toString('base64url') }],
  ])('may give the digest in %s', (_form, line) => {
    expect(parse(line, 'acme')).toMatchObject({ item: { secret: { $case: 'digest', value: digestOf('a') } } });
  });

  test('may give the token, or the client id and the secret, and then needs no digest', () => {
    const token = { kind: { $case: 'bearerToken', value: CANARY } };
    const client = { kind: { $case: 'client', value: { clientId: 'c1', secret: CANARY } } };
    expect(parse({ token: CANARY }, 'acme')).toMatchObject({ item: { secret: { value: token }, clientId: '' } });
    const pair = parse({ client_id: 'c1', secret: CANARY }, 'acme');
    expect(pair).toMatchObject({ item: { secret: { value: client }, clientId: '' } });
  });

  test('says nothing with a field that is null, and a blank line says nothing', () => {
    expect(
      parse({ digest: DIGEST, name: null, expire_time: null, labels: null, disabled: null }, 'acme'),
    ).toMatchObject({
      item: { name: '', expireTime: undefined, disabled: false },
    });
    for (const blank of ['', ' \t', '\r']) expect(parse(blank, 'acme')).toBeUndefined();
  });

  test.each([
    ['LINE_INVALID', '', '{"digest":'],
    ['LINE_INVALID', '', '[]'],
    ['LINE_INVALID', '', 'null'],
    ['LINE_INVALID', '', { digest: DIGEST, [CANARY]: 1 }],
    ['LINE_INVALID', 'name', { digest: DIGEST, name: 7 }],
    ['LINE_INVALID', 'name', { digest: DIGEST, name: 'a\ufffd' }],
    ['LINE_INVALID', 'name', `{"digest":"${DIGEST}","name":"\\ud800"}`],
    ['LINE_INVALID', 'scopes', { digest: DIGEST, scopes: ['a', CANARY.length] }],
    ['LINE_INVALID', 'scopes', { digest: DIGEST, scopes: CANARY }],
    ['LINE_INVALID', 'labels', { digest: DIGEST, labels: { [CANARY]: 1 } }],
    ['LINE_INVALID', 'labels', { digest: DIGEST, labels: ['a', CANARY] }],
    ['LINE_INVALID', 'labels', { digest: DIGEST, labels: CANARY }],
    ['LINE_INVALID', 'labels', `{"digest":"${DIGEST}","labels":{"__proto__":{"a":"${CANARY}"}}}`],
    ['LINE_INVALID', '', `{"digest":"${DIGEST}","__proto__":{"name":"${CANARY}"}}`],
    ['LINE_INVALID', 'create_time', { digest: DIGEST, create_time: 'yesterday' }],
    ['LINE_INVALID', 'expire_time', { digest: DIGEST, expire_time: 1_800_000_000 }],
    ['LINE_INVALID', 'disabled', { digest: DIGEST, disabled: 'no' }],
    ['LINE_INVALID', 'token', { token: '' }],
    ['DIGEST_INVALID', 'digest', { digest: DIGEST.slice(2) }],
    ['DIGEST_INVALID', 'digest', { digest: CANARY }],
    ['DIGEST_INVALID', '', { name: CANARY }],
    ['DIGEST_INVALID', '', { digest: DIGEST, token: CANARY }],
    ['DIGEST_INVALID', '', { secret: CANARY }],
    ['DIGEST_INVALID', '', { token: CANARY, client_id: 'c1' }],
    ['DIGEST_INVALID', '', { digest: DIGEST, client_id: 'c1', secret: CANARY }],
    ['ORGANIZATION_ID_INVALID', 'organization', { digest: DIGEST, organization: 'other' }],
    ['TEXT_INVALID', '', Buffer.concat([Buffer.from('{"name":"'), Buffer.from([0xff]), Buffer.from('"}')])],
  ])('is refused as %s at "%s" without being repeated (%#)', (reason, field, line) => {
    const failure = parse(line, 'acme');
    expect(failure).toMatchObject({ code: status.INVALID_ARGUMENT, reason, field });
    expect(JSON.stringify(failure)).not.toContain('C4nary');
  });

  test.each(['__proto__', 'constructor', 'toString', 'hasOwnProperty'])(
    'loses no label, whatever its name: %s, of which the service tells whether it may be',
    async (name) => {
      const { run, requests } = importing(({ keys }) =>
        keys.map(({ labels }) =>
          labels.has(name) ? failed(status.INVALID_ARGUMENT, 'LABELS_INVALID', 'labels') : imported(''),
        ),
      );
      const { stderr } = await run([`{"digest":"${DIGEST}","labels":{"${name}":"x","team":"y"}}`], ...toAcme);
      expect(requests.flatMap(({ keys }) => keys.map(({ labels }) => [...labels]))).toEqual([
        [
          [name, 'x'],
          ['team', 'y'],
        ],
      ]);
      expect(stderr).toBe('line 1: LABELS_INVALID (labels): refused\n');
    },
  );

  test('must name its organization where nothing else does', () => {
    expect(parse({ digest: DIGEST })).toMatchObject({ reason: 'ORGANIZATION_ID_INVALID' });
    expect(parse({ digest: DIGEST, organization: 'a b' })).toMatchObject({ reason: 'ORGANIZATION_ID_INVALID' });
    expect(parse({ digest: DIGEST, organization: 'acme' }, 'acme')).toMatchObject({ organizationId: 'acme' });
  });

  test('of whatever JSON is taken or refused, and a refusal says none of it', () => {
    const marked = fc.json({ stringUnit: fc.constantFrom('Q', 'Z') as fc.Arbitrary<string> });
    fc.assert(
      fc.property(marked, (text) => {
        const parsed = parse(text, 'acme');
        return !isFailure(parsed) || !/[QZ]{3}/.test(parsed.message + parsed.field);
      }),
    );
  });
});

test('lines are cut at line feeds wherever the pieces of the file end, and those too long are counted', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.stringMatching(/^[a-zé]{0,12}$/), { maxLength: 20 }),
      fc.boolean(),
      fc.integer({ min: 1, max: 9 }),
      async (texts, ended, pieceBytes) => {
        const bytes = Buffer.from(texts.join('\n') + (ended && texts.length > 0 ? '\n' : ''));
        const pieces = Array.from({ length: Math.ceil(bytes.length / pieceBytes) }, (_, at) =>
          bytes.subarray(at * pieceBytes, (at + 1) * pieceBytes),
        );
        const read = [];
        for await (const line of readLines(Readable.from(pieces), 8)) read.push(line);
        const expected = ended || texts.at(-1) !== '' ? texts : texts.slice(0, -1);
        expect(read.map((line) => line.bytes?.toString())).toEqual(
          expected.map((text) => (Buffer.byteLength(text) > 8 ? undefined : text)),
        );
        expect(read.map(({ number }) => number)).toEqual(expected.map((_, at) => at + 1));
        expect(read.at(-1)?.endByte ?? 0).toBe(bytes.length);
      },
    ),
  );
});

test('a broken line in the middle is told with its number and reason, and the others are imported', async () => {
  const { run, requests } = importing();
  const lines = [{ digest: DIGEST }, `{"token":"${CANARY}"`, { digest: 'x' }, '', { digest: DIGEST, name: 'b' }];
  const { exitCode, stdout, stderr } = await run(lines, ...toAcme);
  expect(exitCode).toBe(exitCodes.no);
  expect(stderr.split('\n')).toEqual([
    'line 2: LINE_INVALID: the line is not JSON',
    'line 3: DIGEST_INVALID (digest): expected 64 hexadecimal digits, or base64 of 32 bytes',
    '',
  ]);
  expect(stdout).toBe('4 lines: 2 imported, 0 already there, 2 refused.\n');
  expect(requests.map(({ organizationId, keys }) => [organizationId, keys.map(({ name }) => name)])).toEqual([
    ['acme', ['', 'b']],
  ]);
});

test('what the service refuses is told like what the command refuses, and what is there already is no refusal', async () => {
  const { run } = importing(({ keys }) =>
    keys.map(({ name }) => {
      if (name === 'taken') return failed(status.ALREADY_EXISTS, 'DIGEST_TAKEN', 'digest');
      return name === 'again' ? { ...imported(name), alreadyImported: true } : imported(name);
    }),
  );
  const lines = ['new', 'again', 'taken'].map((name) => ({ digest: DIGEST, name }));
  const { exitCode, stdout, stderr } = await run(lines, ...toAcme);
  expect(exitCode).toBe(exitCodes.no);
  expect(stderr).toBe('line 3: DIGEST_TAKEN (digest): refused\n');
  expect(stdout).toBe('3 lines: 1 imported, 1 already there, 1 refused.\n');
  expect(await run(lines.slice(0, 2), ...toAcme)).toMatchObject({ exitCode: exitCodes.ok, stderr: '' });
});

test('--json prints a line for each line, in their order, with the proto names', async () => {
  const { run } = importing();
  const lines = [
    { organization: 'b', digest: DIGEST, name: 'first' },
    'broken',
    { organization: 'a', digest: DIGEST },
    { organization: 'b', digest: DIGEST },
  ];
  const { stdout, stderr } = await run(lines, ...keyspace, '--json');
  const told = stdout
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as object);
  expect(told).toMatchObject([
    { line: 1, outcome: 'IMPORTED', key: { name: 'first' }, failure: null },
    { line: 2, outcome: 'REFUSED', key: null, failure: { code: 3, reason: 'LINE_INVALID', field: '' } },
    { line: 3, outcome: 'IMPORTED' },
    { line: 4, outcome: 'IMPORTED' },
  ]);
  expect(stderr).toBe('line 2: LINE_INVALID: the line is not JSON\n4 lines: 3 imported, 0 already there, 1 refused.\n');
});

test('lines go by organization, in the order of the file, and the options go with each', async () => {
  const { run, requests } = importing();
  const lines = ['b', 'a', 'b'].map((organization, at) => ({ organization, digest: DIGEST, name: `${at}` }));
  await run(lines, ...keyspace, '--actor', 'user:ada', '--permission', 'x');
  expect(requests).toMatchObject([
    { organizationId: 'b', keys: [{ name: '0' }, { name: '2' }] },
    { organizationId: 'a', keys: [{ name: '1' }] },
  ]);
  for (const request of requests) {
    expect(request).toMatchObject({ keyspace: 'hotmetal', actor: { id: 'ada', permissions: ['x'] } });
  }
});

test('requests have ids of their own, with one beginning for the whole import; one that is repeated keeps its id', async () => {
  let calls = 0;
  const { run, requests } = importing(({ keys }) => {
    calls += 1;
    if (calls === 1) throw Object.assign(new Error('others'), { code: status.ABORTED });
    return keys.map((_, at) => (calls === 2 && at > 0 ? failed(status.UNAVAILABLE, 'AUDIT_BACKLOG') : imported('')));
  });
  await run(
    Array.from({ length: 501 }, () => ({ digest: DIGEST })),
    ...toAcme,
  );
  const ids = requests.map(({ requestId }) => /^([\da-f-]{36})\.(\d+)$/.exec(requestId)?.slice(1));
  expect(new Set(ids.map((parts) => parts?.[0])).size).toBe(1);
  expect(ids.map((parts) => parts?.[1])).toEqual(['1', '1', '2', '3']);
});

test('a request holds 500 keys and 256 KiB at most', async () => {
  const { run, requests } = importing();
  const small = Array.from({ length: 1200 }, () => ({ digest: DIGEST }));
  const large = Array.from({ length: 200 }, () => ({ digest: DIGEST, labels: { note: 'x'.repeat(3000) } }));
  expect(await run([...small, ...large], ...toAcme)).toMatchObject({ exitCode: exitCodes.ok, stderr: '' });
  expect(requests.flatMap(({ keys }) => keys)).toHaveLength(1400);
  expect(requests.length).toBeLessThan(7);
  for (const request of requests) {
    expect(request.keys.length).toBeLessThanOrEqual(500);
    expect(ImportKeysRequest.encode(request).finish().length).toBeLessThanOrEqual(256 * 1024);
  }
});

test('what a service has no room for in its answer is sent in another request', async () => {
  const { run, requests } = importing(({ keys }) =>
    keys.map(({ name }, at) => (at > 1 ? failed(status.INVALID_ARGUMENT, 'TOO_MANY_ITEMS') : imported(name))),
  );
  const lines = [0, 1, 2, 3, 4].map((name) => ({ digest: DIGEST, name: String(name) }));
  expect(await run(lines, ...toAcme)).toMatchObject({ exitCode: exitCodes.ok, stderr: '' });
  expect(requests.map(({ keys }) => keys.map(({ name }) => name))).toEqual([
    ['0', '1', '2', '3', '4'],
    ['2', '3', '4'],
    ['4'],
  ]);
});

test('a service that comes back is asked again for what is open, and for nothing else', async () => {
  let calls = 0;
  const { run, requests } = importing(({ keys }) => {
    calls += 1;
    if (calls === 1)
      return keys.map((_, at) => (at === 1 ? failed(status.UNAVAILABLE, 'STORE_UNAVAILABLE') : imported('')));
    if (calls === 2) throw Object.assign(new Error('others'), { code: status.ABORTED });
    return keys.map(({ name }) => imported(name));
  });
  const lines = ['a', 'b', 'c'].map((name) => ({ digest: DIGEST, name }));
  const { exitCode, stdout, stderr } = await run(lines, ...toAcme);
  expect({ exitCode, stdout, stderr }).toEqual({
    exitCode: exitCodes.ok,
    stdout: '3 lines: 3 imported, 0 already there, 0 refused.\n',
    stderr: '',
  });
  expect(requests.map(({ keys }) => keys.map(({ name }) => name))).toEqual([['a', 'b', 'c'], ['b'], ['b']]);
});

test('a service that stays away ends the import as unavailable, with the line to go on from', async () => {
  let calls = 0;
  const { run, requests } = importing(({ keys }) => {
    calls += 1;
    if (calls > 1) throw Object.assign(new Error('away'), { code: status.ABORTED });
    return keys.map((_, at) => (at === 499 ? failed(status.ALREADY_EXISTS, 'DIGEST_TAKEN') : imported('')));
  });
  const lines = Array.from({ length: 700 }, (_, at) => ({ digest: DIGEST, name: `${at + 1}` }));
  const { exitCode, stderr } = await run(lines, ...toAcme, '--retry-for', '1ms');
  expect(exitCode).toBe(exitCodes.unavailable);
  expect(stderr).toMatch(/^line 500: DIGEST_TAKEN: refused\nkeyreeve: ABORTED: away/);
  expect(stderr).toContain('before that 500 lines: 499 imported, 0 already there, 1 refused; ');
  expect(stderr).toContain('go on with --from-line 501, or run it again from the start: no key is imported twice\n');

  calls = -9;
  await run(lines, ...toAcme, '--from-line', '501');
  expect(requests.at(-1)?.keys.map(({ name }) => name)).toEqual(lines.slice(500).map(({ name }) => name));
});

test('a call that is refused ends the import at once, with its own exit code', async () => {
  const { run, requests } = importing(() => {
    throw Object.assign(new Error('not you'), { code: status.PERMISSION_DENIED });
  });
  const { exitCode, stderr } = await run([{ digest: DIGEST }], ...toAcme);
  expect(exitCode).toBe(exitCodes.denied);
  expect(stderr).toContain('go on with --from-line 1,');
  expect(requests).toHaveLength(1);
});

test('--dry-run tells what is wrong with the lines and sends nothing', async () => {
  const { run, requests } = importing();
  const { exitCode, stdout, stderr } = await run([{ digest: DIGEST }, 'x'], ...toAcme, '--dry-run');
  expect(exitCode).toBe(exitCodes.no);
  expect(stderr).toBe('line 2: LINE_INVALID: the line is not JSON\n');
  expect(stdout).toBe('2 lines: 1 well-formed, 1 refused; nothing was sent.\n');
  expect(requests).toEqual([]);
});

describe('a file that others than its owner may open', () => {
  const write = async (name: string, lines: readonly object[], mode: number): Promise<string> => {
    const path = join(folder.path, name);
    await writeFile(path, lines.map((line) => `${JSON.stringify(line)}\n`).join(''));
    await chmod(path, mode);
    return path;
  };
  const digests = Array.from({ length: 600 }, () => ({ digest: DIGEST }));

  test.each([
    ['a token', { token: CANARY }, 0o644],
    ['a secret', { client_id: 'c1', secret: CANARY }, 0o640],
    ['a secret in a line that is wrong otherwise', { secret: CANARY, disabled: 7 }, 0o604],
  ])('is refused with %s in it before anything is sent, with the way out', async (name, line, mode) => {
    const { run, requests } = importing();
    const file = await write(name, [...digests, line], mode);
    const { exitCode, stdout, stderr } = await run(file, ...toAcme);
    expect(exitCode).toBe(exitCodes.usage);
    expect(stderr).toMatch(/^keyreeve: --file: line 601 holds a secret, .*nothing was imported; .*chmod 600/);
    expect(stdout + stderr).not.toContain('C4nary');
    expect(requests).toEqual([]);
    await chmod(file, 0o600);
    expect((await run(file, ...toAcme)).stdout).toContain('601 lines');
    expect(requests.length).toBeGreaterThan(0);
  });

  test('is imported with digests alone in it', async () => {
    const { run, requests } = importing();
    const file = await write('digests', [...digests, { digest: DIGEST, name: 'secret' }], 0o644);
    expect(await run(file, ...toAcme)).toMatchObject({ exitCode: exitCodes.ok });
    expect(requests.flatMap(({ keys }) => keys)).toHaveLength(601);
  });
});

test('a file that cannot be read is a usage fault that does not repeat its name', async () => {
  const { run } = importing();
  for (const file of [join(folder.path, CANARY), folder.path]) {
    const { exitCode, stderr } = await run(file, ...toAcme);
    expect(exitCode).toBe(exitCodes.usage);
    expect(stderr).toMatch(/^keyreeve: --file: it cannot be read: E[A-Z]+\n$/);
  }
});

test('no output repeats a secret that was imported or refused', async () => {
  const { run } = importing();
  const lines = [
    { token: CANARY },
    { token: CANARY, disabled: CANARY },
    { client_id: 'c1', secret: CANARY },
    `{"secret":"${CANARY}"`,
    { [CANARY]: CANARY },
  ];
  for (const options of [[], ['--json'], ['--dry-run']]) {
    const { stdout, stderr } = await run(lines, ...toAcme, ...options);
    expect(stdout + stderr).not.toContain('C4nary');
  }
});

test('at a terminal progress is shown on a line of its own, which a refused line does not run into', async () => {
  await using service = await serviceThat(({ keys }) => keys.map(({ name }) => imported(name)));
  let shown = '';
  const stderr = Object.assign(
    new Writable({
      write(chunk: Buffer, _encoding, done) {
        shown += chunk.toString();
        done();
      },
    }),
    { isTTY: true },
  );
  const erased = '\r\u001b[K';
  let batches = 0;
  const lines = async function* () {
    while (!shown.includes(erased) || batches < 3) {
      batches += 1;
      yield await Promise.resolve(`${JSON.stringify({ digest: DIGEST })}\n`.repeat(499) + 'broken\n');
    }
  };
  const stdout = new Writable({ write: (_chunk, _encoding, done) => done() });
  const args = ['keys', 'import', ...toAcme, '--file', '-', '--server', service.address];
  await runCommand(args, { stdin: Readable.from(lines(), { highWaterMark: 1 }), stdout, stderr, env: {} });
  const pieces = shown.split('\n').map((line) => line.split(erased));
  expect(pieces.flat()).toContainEqual(
    expect.stringMatching(/^[\d,]+ lines: [\d,]+ imported, 0 already there, \d+ refused$/),
  );
  expect(pieces.map((line) => line.at(-1))).toEqual([
    ...Array.from({ length: batches }, (_, at) => `line ${(at + 1) * 500}: LINE_INVALID: the line is not JSON`),
    '',
  ]);
});

test('memory holds a request, not the file', async () => {
  let produced = 0;
  let ahead = 0;
  let received = 0;
  await using counted = await serviceThat(({ keys }) => {
    received += keys.length;
    ahead = Math.max(ahead, produced - received);
    return keys.map(({ name }) => imported(name));
  });
  const lines = async function* () {
    for (; produced < 20_000; produced += 100) {
      yield await Promise.resolve(`${JSON.stringify({ digest: DIGEST })}\n`.repeat(100));
    }
  };
  const sink = () => new Writable({ write: (_chunk, _encoding, done) => done() });
  const args = ['keys', 'import', ...toAcme, '--file', '-', '--server', counted.address];
  const terminal = { stdin: Readable.from(lines(), { highWaterMark: 1 }), stdout: sink(), stderr: sink(), env: {} };
  expect(await runCommand(args, terminal)).toBe(exitCodes.ok);
  expect(received).toBe(20_000);
  expect(ahead).toBeLessThan(1500);
});

function imported(name: string): ImportKeysResult {
  const key = Key.create({ keyId: 'key_01', keyspace: 'hotmetal', organizationId: 'acme', name });
  return { result: { $case: 'key', value: key }, alreadyImported: false };
}

function failed(code: status, reason: string, field = ''): ImportKeysResult {
  const value = Failure.create({ code, reason, message: 'refused', field });
  return ImportKeysResult.create({ result: { $case: 'failure', value } });
}

type Answer = (request: ImportKeysRequest) => ImportKeysResult[];

/** `keys import` of these lines, or of this file, against a service that answers so. */
function importing(answer: Answer = ({ keys }) => keys.map(({ name }) => imported(name))) {
  const requests: ImportKeysRequest[] = [];
  const run = async (lines: readonly (object | string)[] | string, ...options: string[]) => {
    await using service = await serviceThat((request) => {
      requests.push(request);
      return answer(request);
    });
    const isFile = typeof lines === 'string';
    const stdin = isFile
      ? ''
      : lines.map((line) => `${typeof line === 'string' ? line : JSON.stringify(line)}\n`).join('');
    const file = isFile ? lines : '-';
    return await runCli(['keys', 'import', '--file', file, '--server', service.address, ...options], { stdin });
  };
  return { run, requests };
}

function serviceThat(answer: Answer): ReturnType<typeof fakeService> {
  return fakeService({
    keys: {
      importKeys: (call: ServerUnaryCall<ImportKeysRequest, unknown>, done: sendUnaryData<ImportKeysResponse>) => {
        try {
          done(null, { results: answer(call.request) });
        } catch (error) {
          const { code, message } = error as Error & { code: status };
          done({ code, details: message });
        }
      },
    },
  });
}
