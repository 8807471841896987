/** What the start refuses, of the service as built, because it would take keys that are stored for unknown. */
import { expect, test } from 'vitest';

import { exitCodes } from '../../src/cli/exit-codes.js';
import { ActorType } from '../../src/gen/keyreeve/v1/actor.js';
import { CreateKeyRequest } from '../../src/gen/keyreeve/v1/key_service.js';
import { call } from '../support/call.js';
import { runBuiltCli } from '../support/cli.js';
import { startService } from '../support/service.js';

const [one, other] = [1, 2].map((byte) => Buffer.alloc(32, byte).toString('base64')) as [string, string];

test('the start refuses another pepper under a known version, and one that is missing while keys need it', async () => {
  await using service = await startService({ KEYREEVE_PEPPERS: `1:${one}` });
  const actor = { type: ActorType.USER, id: 'ada', permissions: [] };
  await call((done) =>
    service.keys.createKey(
      CreateKeyRequest.fromPartial({ keyspace: 'hygiara', organizationId: 'acme', actor, name: 'ci' }),
      done,
    ),
  );
  expect(await service.stop()).toBe(0);
  const env = { KEYREEVE_DATA_DIR: service.dataDir, KEYREEVE_LISTEN: '127.0.0.1:0' };
  const start = (peppers: string) => runBuiltCli(['serve'], { env: { ...env, KEYREEVE_PEPPERS: peppers } });

  const wrong = await start(`1:${other}`);
  expect(wrong.exitCode).toBe(exitCodes.usage);
  expect(wrong.stderr).toContain('version 1 is another pepper than the one known by that version; restore it, or');
  const missing = await start(`2:${other}`);
  expect(missing.exitCode).toBe(exitCodes.usage);
  expect(missing.stderr).toContain('version 1 is missing, and unrevoked keys are stored under it');
  for (const { stdout, stderr } of [wrong, missing]) {
    expect(stdout + stderr).not.toContain(one.slice(0, 8));
    expect(stdout + stderr).not.toContain(other.slice(0, 8));
  }

  const counted = await runBuiltCli(['peppers'], { env: { ...env, KEYREEVE_PEPPERS: `1:${one},2:${other}` } });
  expect(counted.exitCode).toBe(exitCodes.ok);
  expect(counted.stdout).toMatch(/^VERSION +UNREVOKED KEYS +STATE\n1 +1 +needed: .*\n2 +0 +in use: .*\n$/);
  const mistaken = await runBuiltCli(['peppers'], { env: { ...env, KEYREEVE_PEPPERS: `1:${other}` } });
  expect(mistaken.stdout).toMatch(/^1 +1 +another pepper than the one known by that version/m);
  const json = await runBuiltCli(['peppers', '--json'], { env });
  expect(JSON.parse(json.stdout)).toEqual({
    versions: [
      { version: 0, unrevoked_keys: 0, state: 'in_use' },
      { version: 1, unrevoked_keys: 1, state: 'missing' },
    ],
  });
  const generated = await runBuiltCli(['peppers', 'generate', '7']);
  expect(generated.stdout).toMatch(/^7:[A-Za-z0-9+/]{43}=\n$/);
  await service.restart();
  expect(service.output()).toContain('"version":1,"in_use":true,"keys":1');
});
