/** The trace of a call, from its metadata to the events: in both stores, in the file and in the topic. */
import { randomUUID } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { credentials, Metadata } from '@grpc/grpc-js';
import { expect, inject, test } from 'vitest';

import { verifyChain } from '../../src/audit/verify-chain.js';
import { ListAuditEventsRequest, type ListAuditEventsResponse } from '../../src/gen/keyreeve/v1/audit_service.js';
import type { CreateKeyResponse, RotateKeyResponse } from '../../src/gen/keyreeve/v1/key_service.js';
import { OrganizationServiceClient } from '../../src/gen/keyreeve/v1/organization_service.js';
import type { CloudEvent } from '../../src/keys/chain.js';
import { toEntries, TRACEPARENT } from '../support/audit.js';
import { call } from '../support/call.js';
import { toCreate, toImport, toRevoke, toRotate, toUpdate, toUpdateOrganization } from '../support/grpc-server.js';
import { consumeWithConsole } from '../support/kafka.js';
import { inOwnDatabase } from '../support/mongodb-store.js';
import { type Service, startService } from '../support/service.js';

const tenant = { keyspace: 'hygiara', organizationId: 'acme' };

/** A traceparent of its own for each, by the last digits of its span. */
function traceparentOf(span: number): string {
  return TRACEPARENT.replace('00f067aa0ba902b7', span.toString(16).padStart(16, '0'));
}

function within(traceparent: string): Metadata {
  const metadata = new Metadata();
  metadata.set('traceparent', traceparent);
  return metadata;
}

/** Makes every kind of change, each in a trace but the first and one whose traceparent is none. Answers what events must say. */
async function change({ keys, address }: Service): Promise<(string | undefined)[]> {
  const organizations = new OrganizationServiceClient(address, credentials.createInsecure());
  try {
    const create = (name: string, as: Metadata, requestId = '') =>
      call<CreateKeyResponse>((done) => keys.createKey(toCreate({ ...tenant, name, requestId }), as, done));
    await create('untraced', new Metadata());
    const { key } = await create('traced', within(traceparentOf(1)), 'r1');
    // A repeat is another call of another trace; the change was made in the first one's.
    expect((await create('traced', within(traceparentOf(2)), 'r1')).replayed).toBe(true);
    await create('malformed', within(TRACEPARENT.toUpperCase()));
    if (!key) throw new Error('no key was answered');
    await call((done) => keys.updateKey(toUpdate(key, { name: 'renamed' }), within(traceparentOf(3)), done));
    const rotated = await call<RotateKeyResponse>((done) =>
      keys.rotateKey(toRotate(key), within(traceparentOf(4)), done),
    );
    if (!rotated.key) throw new Error('no successor was answered');
    const { key: successor } = rotated;
    await call((done) => keys.revokeKey(toRevoke(successor), within(traceparentOf(5)), done));
    const items = [{ secret: { $case: 'digest' as const, value: Buffer.alloc(32, 1) }, name: 'old', display: 'x' }];
    await call((done) => keys.importKeys(toImport(items, tenant), within(traceparentOf(6)), done));
    const suspension = toUpdateOrganization({ suspended: true }, tenant);
    await call((done) => organizations.updateOrganization(suspension, within(traceparentOf(7)), done));
    return [undefined, traceparentOf(1), undefined, ...[3, 4, 5, 6, 7].map(traceparentOf)];
  } finally {
    organizations.close();
  }
}

/** Its log's lines of a call. */
function linesOf(service: Service, name: string): object[] {
  const lines = service.output().split('\n');
  return lines.filter((line) => line.includes(`"call":"${name}"`)).map((line) => JSON.parse(line) as object);
}

/** The events as the service lists them. */
async function listed({ audit }: Service): Promise<string[]> {
  const request = ListAuditEventsRequest.fromPartial(tenant);
  const { events } = await call<ListAuditEventsResponse>((done) => audit.listAuditEvents(request, done));
  return events.map(({ cloudEvent }) => cloudEvent);
}

async function expectTraces(texts: readonly string[], traces: readonly (string | undefined)[]): Promise<void> {
  expect(texts.map((text) => (JSON.parse(text) as CloudEvent).traceparent)).toEqual(traces);
  const entries = toEntries(texts.map((cloudEvent) => ({ cloudEvent })));
  const verdict = await verifyChain(
    (async function* () {
      yield* await Promise.resolve(entries);
    })(),
    { repeats: 'counted' },
  );
  expect(verdict).toMatchObject({ events: traces.length, repeats: 0, faultCount: 0 });
}

test('each change tells of its trace, a repeat of the first one’s, in one whole chain: SQLite and the file', async () => {
  await using service = await startService();
  const traces = await change(service);
  await expectTraces(await listed(service), traces);
  expect(await service.stop()).toBe(0);
  const file = await readFile(join(service.dataDir, 'audit.jsonl'), 'utf8');
  await expectTraces(file.trimEnd().split('\n'), traces);
  await expect
    .poll(() => linesOf(service, 'RevokeKey'))
    .toMatchObject([{ trace_id: '4bf92f3577b34da6a3ce929d0e0e4736', span_id: '0000000000000005' }]);
});

test('each change tells of its trace, a repeat of the first one’s, in one whole chain: MongoDB and the topic', async () => {
  const topic = `traces.${randomUUID()}`;
  await using service = await startService({
    KEYREEVE_MONGODB_URI: inOwnDatabase(inject('mongodbUri')),
    KEYREEVE_KAFKA_BROKERS: inject('kafkaBrokers').join(','),
    KEYREEVE_AUDIT_TOPIC: topic,
    KEYREEVE_KAFKA_ALLOW_SINGLE_BROKER: 'true',
  });
  const traces = await change(service);
  await expectTraces(await listed(service), traces);
  const messages = await consumeWithConsole(inject('kafkaBrokers'), topic, { count: traces.length });
  await expectTraces(
    messages.map(({ value }) => value),
    traces,
  );
});

test('what a gateway asks over HTTP says in its line which trace its request is part of', async () => {
  await using service = await startService({ KEYREEVE_HTTP_LISTEN: '127.0.0.1:0', KEYREEVE_LOG_LEVEL: 'debug' });
  for (const traceparent of [traceparentOf(8), `${traceparentOf(9)}x`]) {
    const response = await fetch(`http://${service.httpAddress}/forward_auth?keyspace=hygiara`, {
      headers: { traceparent },
    });
    expect(response.status).toBe(401);
  }
  // The service answers before its line has come through.
  await expect.poll(() => linesOf(service, 'ForwardAuth')).toMatchObject([{ span_id: '0000000000000008' }, {}]);
  expect(linesOf(service, 'ForwardAuth')[1]).not.toHaveProperty('trace_id');
});
