/** The commands that change a key or an organization in place: rotate, update, organizations. */
import type { sendUnaryData, ServerUnaryCall } from '@grpc/grpc-js';
import { expect, test } from 'vitest';

import { exitCodes } from '../../src/cli/exit-codes.js';
import { Key, KeyState } from '../../src/gen/keyreeve/v1/key.js';
import {
  type RotateKeyRequest,
  RotateKeyResponse,
  type UpdateKeyRequest,
  UpdateKeyResponse,
} from '../../src/gen/keyreeve/v1/key_service.js';
import { Organization } from '../../src/gen/keyreeve/v1/organization.js';
import {
  GetOrganizationResponse,
  type UpdateOrganizationRequest,
  UpdateOrganizationResponse,
} from '../../src/gen/keyreeve/v1/organization_service.js';
import { fakeService, runCli } from '../support/cli.js';

const CANARY = 'hm_C4naryC4naryC4naryC4naryC4naryC4naryC4nary';
const noon = { seconds: 1_800_000_000n, nanos: 0 };
const organization = ['--keyspace', 'hotmetal', '--organization', 'acme'];
const keyOf = (fields: Partial<Key>): Key =>
  Key.create({ keyspace: 'hotmetal', organizationId: 'acme', name: 'ci', state: KeyState.ACTIVE, ...fields });
const key = keyOf({ keyId: 'key_02', rotatedFrom: 'key_01' });
const old = keyOf({ keyId: 'key_01', supersededBy: 'key_02' });
const complete = { complete: true, completeByTime: undefined, cachesClearTime: noon };
const rotated = RotateKeyResponse.create({
  key,
  previousKey: old,
  credential: { kind: { $case: 'bearerToken', value: CANARY } },
  enforcement: complete,
});

test('every option of keys rotate reaches the service, and an overlap of 0 is not one that is not given', async () => {
  const { run, requests } = rotating(() => rotated);
  await run(...'--overlap 7d --ttl 30d --actor user:ada --permission a --request-id r1'.split(' '));
  await run('--overlap', '0', '--expires', '2027-01-15T08:00:00Z');
  await run();
  expect(requests).toMatchObject([
    {
      keyspace: 'hotmetal',
      organizationId: 'acme',
      actor: { id: 'ada', permissions: ['a'] },
      requestId: 'r1',
      selector: { selector: { $case: 'keyId', value: 'key_01' } },
      overlap: { seconds: 604_800n, nanos: 0 },
      expiration: { $case: 'ttl', value: { seconds: 2_592_000n, nanos: 0 } },
    },
    { overlap: { seconds: 0n, nanos: 0 }, expiration: { $case: 'expireTime', value: noon } },
    { overlap: undefined, expiration: undefined },
  ]);
  expect(requests[1]?.requestId).not.toBe(requests[2]?.requestId);
});

test.each([
  { previous: {}, says: 'works until it is revoked.' },
  { previous: { expireTime: noon }, says: 'works until 2027-01-15T08:00:00Z.' },
  { previous: { state: KeyState.REVOKED, revokeTime: noon }, says: 'is revoked since 2027-01-15T08:00:00Z.' },
  { previous: { state: KeyState.DISABLED }, says: 'is disabled, and could be used until it is revoked.' },
])('a rotation shows the new credential once, and that the old key $says', async ({ previous, says }) => {
  const { run } = rotating(() => ({ ...rotated, previousKey: { ...old, ...previous } }));
  const { exitCode, stdout, stderr } = await run();
  expect(exitCode).toBe(exitCodes.ok);
  expect(stdout.split(CANARY)).toHaveLength(2);
  expect(stdout).toContain('This is the only time that the credential is shown');
  expect(stdout).toContain('Rotated key_01 of hotmetal/acme to key_02.');
  expect(stdout).toContain(`The old key key_01 (ci) ${says}`);
  expect(stdout.includes('Enforcement: complete.')).toBe(previous.state === KeyState.REVOKED);
  expect(stderr).toBe('');
});

test('keys rotate --secret-only prints the secret and nothing else, --json one document with the proto names', async () => {
  const { run } = rotating(() => rotated);
  expect(await run('--secret-only')).toEqual({ exitCode: exitCodes.ok, stdout: `${CANARY}\n`, stderr: '' });
  expect(JSON.parse((await run('--json')).stdout)).toMatchObject({
    key: { key_id: 'key_02', rotated_from: 'key_01' },
    credential: { bearer_token: CANARY },
    previous_key: { key_id: 'key_01', superseded_by: 'key_02' },
    enforcement: { complete: true },
    replayed: false,
  });
});

test.each([
  { name: 'with an overlap, nothing', previous: {}, ended: undefined },
  { name: 'without one, the old key', previous: { state: KeyState.REVOKED }, ended: 'key_01' },
  { name: 'for the second time, the key before the old one', previous: { rotatedFrom: 'key_00' }, ended: 'key_00' },
])('of a rotation is told what it ended: $name', async ({ previous, ended }) => {
  const { run } = rotating(() => ({ ...rotated, previousKey: { ...old, ...previous } }));
  const { stdout } = await run();
  const enforcement = ended && `Enforcement: complete. From now on no replica accepts ${ended}.`;
  expect(stdout.split('\n').find((line) => line.startsWith('Enforcement'))).toBe(enforcement);
});

test('an end that is not in effect everywhere yet is told, with --secret-only beside the secret', async () => {
  const pending = { complete: false, completeByTime: noon, cachesClearTime: noon };
  const revoked = { ...old, state: KeyState.REVOKED, revokeTime: noon };
  const { run } = rotating(() => ({ ...rotated, previousKey: revoked, enforcement: pending }));
  expect((await run()).stdout).toContain('Enforcement: complete by 2027-01-15T08:00:00Z.');
  const bare = await run('--secret-only');
  expect(bare.stdout).toBe(`${CANARY}\n`);
  expect(bare.stderr).toContain('Enforcement: complete by 2027-01-15T08:00:00Z.');
});

test('a replayed rotation says to rotate the new key with overlap 0, and what that ends besides', async () => {
  const replayed = { ...rotated, credential: undefined, replayed: true };
  const { run } = rotating(() => replayed);
  const human = await run('--request-id', 'r1');
  expect(human.exitCode).toBe(exitCodes.ok);
  expect(human.stderr).toContain('which also ends key_01 at once: keyreeve keys rotate ');
  expect(human.stderr).toContain('--keyspace hotmetal --organization acme --id key_02 --overlap 0\n');
  expect(JSON.parse((await run('--json')).stdout)).toMatchObject({ credential: null, replayed: true });
  expect(await run('--secret-only')).toMatchObject({ exitCode: exitCodes.refused, stdout: '' });
});

test.each([
  { name: 'a later rotation', fields: { supersededBy: 'key_03' }, says: 'rotate key_03, which has taken its place' },
  { name: 'a revocation', fields: { state: KeyState.REVOKED }, says: 'create another key' },
  { name: 'its expiry', fields: { state: KeyState.EXPIRED }, says: 'create another key' },
])('after $name a replay does not advise to rotate a key that cannot be', async ({ fields, says }) => {
  const { run } = rotating(() => ({
    ...rotated,
    key: { ...key, ...fields },
    credential: undefined,
    replayed: true,
  }));
  const { stderr } = await run();
  expect(stderr).toContain(says);
  expect(stderr).not.toContain('keyreeve keys rotate');
});

test('every option of keys update reaches the service, in the mask and nowhere else', async () => {
  const { run, requests } = updating();
  const all =
    '--new-name build --label team=infra --label env= --scope b --scope a --disable --etag e1 --request-id r1';
  await run(...all.split(' '), '--expires', '2027-01-15T08:00:00Z', '--actor', 'user:ada');
  await run('--no-labels', '--no-scopes', '--never-expires', '--enable');
  await run('--new-name', '');
  expect(requests).toMatchObject([
    {
      actor: { id: 'ada' },
      requestId: 'r1',
      selector: { selector: { $case: 'keyId', value: 'key_01' } },
      etag: 'e1',
      updateMask: ['name', 'labels', 'scopes', 'expire_time', 'disabled'],
      key: {
        name: 'build',
        labels: new Map([
          ['team', 'infra'],
          ['env', ''],
        ]),
        scopes: ['b', 'a'],
        expireTime: noon,
        disabled: true,
      },
    },
    {
      etag: '',
      updateMask: ['labels', 'scopes', 'expire_time', 'disabled'],
      key: { labels: new Map(), scopes: [], expireTime: undefined, disabled: false },
    },
    { updateMask: ['name'], key: { name: '' } },
  ]);
});

test.each([
  [[]],
  [['--etag', 'e1']],
  [['--disable', '--enable']],
  [['--label', 'a=b', '--no-labels']],
  [['--scope', 'a', '--no-scopes']],
  [['--expires', '2027-01-15T08:00:00Z', '--never-expires']],
  [['--label', 'a=b', '--label', 'a=c']],
])('keys update with %j is a usage fault, and nothing is sent', async (options) => {
  const { run, requests } = updating();
  expect((await run(...options)).exitCode).toBe(exitCodes.usage);
  expect(requests).toEqual([]);
});

test.each([
  { options: ['--disable'], fields: { disabled: true }, changed: 'it is switched off', denied: 'it' },
  { options: ['--enable'], changed: 'it is switched on' },
  { options: ['--never-expires'], changed: 'end' },
  { options: ['--new-name', 'x', '--no-labels'], changed: 'name, labels' },
  { options: ['--new-name', 'x', '--enable'], changed: 'name; it is switched on' },
  { options: ['--scope', 'a'], changed: 'scopes', denied: 'it for a scope that it does not have' },
  {
    options: ['--no-scopes', '--expires', '2027-01-15T08:00:00Z'],
    fields: { expireTime: noon },
    changed: 'scopes, end',
    denied: 'it for a scope that it does not have, or after its end',
  },
])('keys update $options says what it changed, and what is denied only where it can deny', async (update) => {
  const { run } = updating(update.fields);
  const { stdout } = await run(...update.options);
  expect(stdout).toContain(`Updated key_01 of hotmetal/acme: ${update.changed}.\n`);
  const enforcement = update.denied && `Enforcement: complete. From now on no replica accepts ${update.denied}.`;
  expect(stdout.split('\n').find((line) => line.startsWith('Enforcement'))).toBe(enforcement);
});

test('keys update --json tells of the enforcement always', async () => {
  const { run } = updating();
  expect(JSON.parse((await run('--new-name', 'x', '--json')).stdout)).toMatchObject({
    key: { key_id: 'key_01' },
    enforcement: { complete: true },
  });
});

test('an organization is shown with its plan, and one that was never written as such', async () => {
  const written = Organization.create({ keyspace: 'hookdeploy', organizationId: 'acme', plan: 'team', keyCount: 3 });
  let answer = Organization.create({ ...written, suspended: true, createTime: noon, updateTime: noon, etag: 'e1' });
  await using service = await organizationServiceThat({
    getOrganization: () => GetOrganizationResponse.create({ organization: answer }),
  });
  const get = ['organizations', 'get', ...organization, '--server', service.address];
  expect((await runCli(get)).stdout.split('\n').map((line) => line.split(/ {2,}/))).toEqual([
    ['organization', 'hookdeploy/acme'],
    ['plan', 'team'],
    ['suspended', 'yes: every key of it is denied'],
    ['keys', '3 that count towards the limit'],
    ['created', '2027-01-15T08:00:00Z'],
    ['changed', '2027-01-15T08:00:00Z'],
    ['etag', 'e1'],
    [''],
  ]);
  expect(JSON.parse((await runCli([...get, '--json'])).stdout)).toMatchObject({ plan: 'team', suspended: true });
  answer = written;
  expect((await runCli(get)).stdout).toContain('never written');
});

test('organizations update changes what an option names, and there must be one', async () => {
  let isReplay = false;
  const requests: UpdateOrganizationRequest[] = [];
  await using service = await organizationServiceThat({
    updateOrganization: (request: UpdateOrganizationRequest) => {
      requests.push(request);
      const fields = { plan: 'team', suspended: request.organization?.suspended === true && !isReplay };
      const changed = Organization.create({ keyspace: 'hotmetal', organizationId: 'acme', ...fields });
      return UpdateOrganizationResponse.create({ organization: changed, enforcement: complete });
    },
  });
  const run = (...options: string[]) =>
    runCli(['organizations', 'update', ...organization, '--server', service.address, ...options]);
  const suspended = await run('--suspend', '--etag', 'e1', '--request-id', 'r1', '--actor', 'user:ada');
  expect(suspended.stdout).toContain('Enforcement: complete. From now on no replica accepts a key of it.');
  isReplay = true;
  expect((await run('--suspend', '--request-id', 'r1')).stdout).not.toContain('Enforcement');
  requests.pop();
  expect((await run('--plan', 'team')).stdout).not.toContain('Enforcement');
  expect(JSON.parse((await run('--resume', '--plan', 'x', '--json')).stdout)).toMatchObject({
    organization: { plan: 'team' },
    enforcement: { complete: true },
  });
  await run('--default-plan');
  expect(requests).toMatchObject([
    {
      updateMask: ['suspended'],
      organization: { suspended: true },
      etag: 'e1',
      requestId: 'r1',
      actor: { id: 'ada' },
    },
    { updateMask: ['plan'], organization: { plan: 'team' }, etag: '' },
    { updateMask: ['plan', 'suspended'], organization: { plan: 'x', suspended: false } },
    { updateMask: ['plan'], organization: { plan: '' } },
  ]);
  for (const options of [
    [],
    ['--suspend', '--resume'],
    ['--etag', 'e1'],
    ['--plan', ''],
    ['--plan', 'x', '--default-plan'],
  ]) {
    expect((await run(...options)).exitCode).toBe(exitCodes.usage);
  }
  expect(requests).toHaveLength(4);
});

test.each([['--overlap'], ['--expires'], ['--ttl'], ['--timeout']])(
  'a secret put into %s of keys rotate is refused without being repeated',
  async (option) => {
    const { exitCode, stdout, stderr } = await runCli(['keys', 'rotate', ...organization, '--id', 'x', option, CANARY]);
    expect(exitCode).toBe(exitCodes.usage);
    expect(stdout + stderr).not.toContain('C4nary');
  },
);

type Asked = RotateKeyRequest | UpdateKeyRequest;
type Run = (...options: string[]) => ReturnType<typeof runCli>;

/** `keys rotate --id key_01` against a service that answers so; it ends with each run. */
function rotating(answer: () => RotateKeyResponse): { run: Run; requests: Asked[] } {
  return running('rotate', 'rotateKey', answer);
}

function updating(fields: Partial<Key> = {}): { run: Run; requests: Asked[] } {
  return running('update', 'updateKey', () =>
    UpdateKeyResponse.create({ key: { ...old, supersededBy: '', ...fields }, enforcement: complete }),
  );
}

function running(command: string, method: string, answer: () => unknown): { run: Run; requests: Asked[] } {
  const requests: Asked[] = [];
  const run: Run = async (...options) => {
    await using service = await fakeService({
      keys: handlersOf({
        [method]: (request: never) => {
          requests.push(request);
          return answer();
        },
      }),
    });
    const selected = [...organization, '--id', 'key_01', '--server', service.address];
    return await runCli(['keys', command, ...selected, ...options]);
  };
  return { run, requests };
}

function organizationServiceThat(handlers: Record<string, Handler>): ReturnType<typeof fakeService> {
  return fakeService({ organizations: handlersOf(handlers) });
}

type Handler = (request: never) => unknown;

function handlersOf(handlers: Record<string, Handler>) {
  return Object.fromEntries(
    Object.entries(handlers).map(([name, handle]) => [
      name,
      (call: ServerUnaryCall<unknown, unknown>, answer: sendUnaryData<unknown>) => {
        answer(null, handle(call.request as never));
      },
    ]),
  );
}
