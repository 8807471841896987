/** The metrics of the service as it runs: what they count, and that nobody who calls can put anything into them. */
import { copyFile, readFile, writeFile } from 'node:fs/promises';
import { type IncomingMessage } from 'node:http';
import { get } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { Metadata, status } from '@grpc/grpc-js';
import { expect, inject, test } from 'vitest';

import { lifetimeOf } from '../../src/config/access.js';
import { newCallerToken } from '../../src/config/callers.js';
import {
  BatchVerifyKeysRequest,
  type CreateKeyResponse,
  GetKeyRequest,
  VerifyKeyRequest,
} from '../../src/gen/keyreeve/v1/key_service.js';
import { CALL_NAMES } from '../../src/grpc/callers.js';
import { DECISIONS } from '../../src/keys/judge-key.js';
import { STORE_OPERATIONS, STORE_TROUBLES } from '../../src/store/metered.js';
import { call } from '../support/call.js';
import { toCreate, toRevoke, withToken } from '../support/grpc-server.js';
import { makeGuardedFolder } from '../support/guard.js';
import { readMetrics, scrape, type Scraped } from '../support/metrics.js';
import { inOwnDatabase } from '../support/mongodb-store.js';
import { type Service, startService } from '../support/service.js';

const HTTP = { KEYREEVE_HTTP_LISTEN: '127.0.0.1:0' };
const KEYSPACE_NAMES = ['hotmetal', 'metal', 'metlo', 'hookdeploy', 'hygiara'];
const tenant = { keyspace: 'hygiara', organizationId: 'acme' };

const bearing = (value: string) => ({ credential: { kind: { $case: 'bearerToken' as const, value } } });

function verify({ keys }: Service, request: Partial<VerifyKeyRequest>, as = new Metadata()): Promise<unknown> {
  return call((done) => keys.verifyKey({ ...VerifyKeyRequest.fromPartial({}), ...request }, as, done));
}

async function issue({ keys }: Service, fields: Parameters<typeof toCreate>[0], as = new Metadata()) {
  const { key, credential } = await call<CreateKeyResponse>((done) =>
    keys.createKey(toCreate({ ...tenant, ...fields }), as, done),
  );
  if (credential?.kind?.$case !== 'bearerToken' || !key) throw new Error('no token was answered');
  return { key, token: credential.kind.value };
}

const NO_SUCH_CALL = '/keyreeve.v1.KeyService/CANARY_method';

test('whatever comes, labels have values that are known, there are no more series for it, and nothing of it is in them', async () => {
  await using folder = await makeGuardedFolder(join(tmpdir(), 'keyreeve-metrics-'));
  const file = join(folder.path, 'callers.yaml');
  const [gateway, console] = (['gateway', 'console'] as const).map((name) => {
    const made = newCallerToken({
      name,
      roles: [name === 'gateway' ? 'verifier' : 'admin'],
      keyspaces: ['*'],
      organizations: ['*'],
      mayAssertActor: true,
    });
    if (Array.isArray(made)) throw new Error(JSON.stringify(made));
    return made;
  });
  if (!gateway || !console) throw new Error('no callers were made');
  await writeFile(file, `callers:\n${gateway.line}\n${console.line}\n`);
  await using service = await startService({ ...HTTP, KEYREEVE_CALLERS: file });
  const { keys } = service;
  const admin = withToken(console.token.reveal());
  const { token } = await issue(service, { name: 'ci' }, admin);

  const attack = async (canary: string): Promise<void> => {
    const junk = new Metadata();
    for (const name of ['traceparent', 'user-agent', 'x-caller', 'caller']) junk.set(name, canary);
    const stranger = withToken(canary);
    const claiming = withToken(gateway.token.reveal());
    claiming.set('traceparent', `00-${canary}`);
    const attempts = [
      ...[canary, `hrdly_${canary}`, `${token}${canary}`, token].flatMap((value) =>
        [stranger, claiming, junk].map((as) => verify(service, bearing(value), as)),
      ),
      ...[canary, 'hygiara'].map((keyspace) => verify(service, { keyspace, ...bearing(canary) }, claiming)),
      verify(service, { ...bearing(token), organizationId: canary, requiredScopes: [canary] }, claiming),
      issue(service, { name: canary, organizationId: canary }, admin),
      issue(service, { name: canary, keyspace: canary }, admin),
      issue(service, { name: canary, type: canary, labels: new Map([[canary, canary]]) }, admin),
      issue(service, { name: 'again', requestId: canary }, stranger),
      call((done) =>
        keys.getKey({ ...GetKeyRequest.fromPartial({ keyspace: canary, organizationId: canary }) }, admin, done),
      ),
      call((done) =>
        keys.makeUnaryRequest(
          NO_SUCH_CALL.replace('CANARY', canary),
          (value: string) => Buffer.from(value),
          (bytes) => bytes,
          canary,
          claiming,
          done,
        ),
      ),
      ...[
        canary,
        `healthz/${canary}`,
        `metrics?${canary}`,
        `forward_auth?keyspace=${canary}`,
        `auth_request?keyspace=hygiara&${canary}=${canary}`,
        'forward_auth?keyspace=hygiara',
      ].map((path) =>
        fetch(`http://${service.httpAddress}/${path}`, { headers: { 'x-canary': canary, authorization: canary } }),
      ),
    ];
    await Promise.allSettled(attempts);
  };

  await attack('CANARYone');
  const first = await scrape(service.httpAddress);
  await attack('CANARYtwo');
  const second = await scrape(service.httpAddress);
  const seriesOf = ({ samples }: Scraped) =>
    samples
      .filter(({ name }) => name.startsWith('keyreeve_'))
      .map(({ name, labels }) => JSON.stringify([name, labels]));
  expect(seriesOf(second).sort()).toEqual(seriesOf(first).sort());
  expect(second.text).not.toContain('CANARY');
  expect(second.text).not.toContain(token.slice(10));
  expect(second.text).not.toContain('key_');

  const known: Record<string, readonly string[]> = {
    method: CALL_NAMES,
    code: Object.keys(status),
    caller: ['gateway', 'console', '(unknown)'],
    keyspace: [...KEYSPACE_NAMES, '(none)'],
    decision: DECISIONS,
    operation: STORE_OPERATIONS,
    kind: [...STORE_TROUBLES, 'refused'],
    result: ['hit', 'absent', 'miss', 'answered', 'failed', 'admitted', 'refused'],
    how: ['read', 'joined'],
  };
  const own = readMetrics(
    second.text
      .split('\n')
      .filter((line) => /^(# \w+ )?keyreeve_/.test(line))
      .join('\n'),
  );
  const labels = new Set(own.samples.flatMap((sample) => Object.keys(sample.labels)));
  expect([...labels].sort()).toEqual([...Object.keys(known), 'le', 'node_version', 'version'].sort());
  for (const [label, values] of Object.entries(known)) {
    expect([...own.valuesOf(label)].filter((value) => !values.includes(value))).toEqual([]);
  }
  expect([...own.valuesOf('caller')].sort()).toEqual([...(known.caller ?? [])].sort());
});

test('what was done is counted, once: calls, decisions, memory, budgets, changes, events', async () => {
  await using service = await startService(HTTP);
  const { keys, httpAddress } = service;
  const { key, token } = await issue(service, { name: 'ci' });
  for (let at = 0; at < 3; at += 1) await verify(service, bearing(token));
  await verify(service, bearing('no key'));
  const items = [bearing(token), { keyspace: 'hygiara', ...bearing('no key') }, { keyspace: 'nowhere' }];
  const requests = items.map((item) => ({ ...VerifyKeyRequest.fromPartial({}), ...item }));
  await call((done) => keys.batchVerifyKeys({ ...BatchVerifyKeysRequest.fromPartial({}), requests }, done));
  for (const headers of [{ 'x-api-key': token }, {}, { 'x-api-key': 'no key' }] as Record<string, string>[]) {
    await (await fetch(`http://${httpAddress}/forward_auth?keyspace=hygiara`, { headers })).text();
  }
  await call((done) => keys.revokeKey(toRevoke(key), done));
  await verify(service, bearing(token));
  await call((done) => keys.createKey(toCreate({ keyspace: 'nowhere' }), done)).catch(() => undefined);

  const actor = { type: 1, id: 'ada', permissions: ['api_keys.manage'] };
  const { token: limited } = await issue(service, { keyspace: 'hookdeploy', name: 'limited', actor });
  for (let at = 0; at < 61; at += 1) await verify(service, bearing(limited));

  const scraped = await scrape(httpAddress);
  const calls = (method: string, code: string) =>
    scraped.sum('keyreeve_calls_total', { method, code, caller: 'local' });
  expect([calls('VerifyKey', 'OK'), calls('BatchVerifyKeys', 'OK'), calls('RevokeKey', 'OK')]).toEqual([66, 1, 1]);
  expect([calls('CreateKey', 'OK'), calls('CreateKey', 'NOT_FOUND')]).toEqual([2, 1]);
  expect(calls('ForwardAuth', 'OK')).toBe(3);
  const verified = { method: 'VerifyKey' };
  expect(scraped.sum('keyreeve_call_duration_seconds_count', verified)).toBe(66);
  expect(scraped.sum('keyreeve_call_duration_seconds_bucket', { ...verified, le: '+Inf' })).toBe(66);
  expect(scraped.sum('keyreeve_call_duration_seconds_sum', verified)).toBeGreaterThan(0);

  const decisions = (keyspace: string, decision: string) =>
    scraped.sum('keyreeve_decisions_total', { keyspace, decision });
  expect(decisions('hygiara', 'VALID')).toBe(5);
  expect(decisions('hygiara', 'REVOKED')).toBe(1);
  // Beside the one of the batch those of the gateway: that without a credential was decided, too.
  expect([decisions('(none)', 'MALFORMED'), decisions('hygiara', 'MALFORMED')]).toEqual([1, 3]);
  expect([decisions('hookdeploy', 'VALID'), decisions('hookdeploy', 'RATE_LIMITED')]).toEqual([60, 1]);
  expect(scraped.sum('keyreeve_budget_requests_total', { result: 'admitted' })).toBe(60);
  expect(scraped.sum('keyreeve_budget_requests_total', { result: 'refused' })).toBe(1);
  expect(scraped.sum('keyreeve_budget_blocks_total')).toBe(10);

  expect(scraped.sum('keyreeve_cache_keys')).toBe(2);
  expect(scraped.sum('keyreeve_cache_filled_total')).toBe(2);
  expect(scraped.sum('keyreeve_cache_lookups_total', { result: 'miss' })).toBe(2);
  expect(scraped.sum('keyreeve_cache_loads_total', { how: 'read' })).toBe(2);
  expect(scraped.sum('keyreeve_cache_lookups_total', { result: 'hit' })).toBeGreaterThan(60);

  expect(scraped.sum('keyreeve_enforcement_duration_seconds_count')).toBe(1);
  expect(scraped.sum('keyreeve_store_duration_seconds_count', { operation: 'change' })).toBe(3);
  expect(scraped.sum('keyreeve_store_duration_seconds_count', { operation: 'enforce' })).toBe(1);
  for (const name of ['keyreeve_ready', 'keyreeve_lease_held', 'keyreeve_build_info'])
    expect(scraped.sum(name)).toBe(1);
  expect(scraped.sum('process_resident_memory_bytes')).toBeGreaterThan(0);

  await expect
    .poll(async () => {
      const later = await scrape(httpAddress);
      const published = later.sum('keyreeve_audit_published_events_total');
      return [published, later.sum('keyreeve_outbox_events'), later.sum('keyreeve_relay_leader')];
    })
    .toEqual([3, 0, 1]);
  await expect
    .poll(async () => {
      const later = await scrape(httpAddress);
      return [later.sum('keyreeve_last_uses_written_total'), later.sum('keyreeve_last_uses_pending')];
    })
    .toEqual([2, 0]);
});

const CERTIFICATES = fileURLToPath(new URL('../support/certificates/', import.meta.url));
const deploy = (path: string) => readFile(new URL(`../../deploy/${path}`, import.meta.url), 'utf8');

test('with TLS and MongoDB too: the certificate in force, the lease, and all that dashboard and alerts ask for', async () => {
  await using folder = await makeGuardedFolder(join(tmpdir(), 'keyreeve-metrics-'));
  const put = async (name: string) => {
    await copyFile(join(CERTIFICATES, `${name}.pem`), join(folder.path, 'server.pem'));
    await copyFile(join(CERTIFICATES, `${name}.key`), join(folder.path, 'server.key'));
    const { from, until } = lifetimeOf({ certificate: await readFile(join(folder.path, 'server.pem'), 'utf8') });
    return [from.getTime() / 1000, until.getTime() / 1000];
  };
  const times = await put('server');
  await using service = await startService({
    ...HTTP,
    KEYREEVE_MONGODB_URI: inOwnDatabase(inject('mongodbUri')),
    KEYREEVE_TLS_CERT: join(folder.path, 'server.pem'),
    KEYREEVE_TLS_KEY: join(folder.path, 'server.key'),
  });
  const scrapeSecured = async () => {
    const response = await new Promise<IncomingMessage>((resolve, reject) => {
      // What it shows is looked at, and not whether to trust it.
      const options = { rejectUnauthorized: false, agent: false };
      get(`https://${service.httpAddress}/metrics`, options, resolve).once('error', reject);
    });
    expect(response.headers['content-type']).toMatch(/^text\/plain; version=0\.0\.4/);
    return readMetrics(await text(response));
  };
  const certificate = ({ sum }: Scraped) =>
    ['begin', 'end'].map((which) => sum(`keyreeve_certificate_${which}_timestamp_seconds`));

  expect(certificate(await scrapeSecured())).toEqual(times);
  await expect
    .poll(async () => {
      const { sum } = await scrapeSecured();
      return [sum('keyreeve_lease_held'), sum('keyreeve_replicas')];
    })
    .toEqual([1, 1]);
  const scraped = await scrapeSecured();
  expect(scraped.sum('keyreeve_lease_remaining_seconds')).toBeGreaterThan(0);
  expect(scraped.sum('keyreeve_lease_remaining_seconds')).toBeLessThanOrEqual(15);
  const other = await put('expired');
  expect(other).not.toEqual(times);
  process.kill(service.pid, 'SIGHUP');
  await expect.poll(async () => certificate(await scrapeSecured())).toEqual(other);

  const offered = new Set(
    [...scraped.types].flatMap(([name, type]) =>
      type === 'histogram' ? ['_bucket', '_sum', '_count'].map((part) => name + part) : [name],
    ),
  );
  const asked = [await deploy('grafana/keyreeve.json'), await deploy('prometheus/keyreeve.rules.yaml')].map(
    (page) => new Set([...page.matchAll(/\b(?:keyreeve|process|nodejs)_[a-z0-9_]+\b/g)].map(([name]) => name)),
  );
  for (const names of asked) {
    expect(names.size).toBeGreaterThan(10);
    expect([...names].filter((name) => !offered.has(name))).toEqual([]);
  }
});
