/** A backup of the store that is put back while the audit sink knows better: on both stacks, with the real thing. */
import { randomUUID } from 'node:crypto';
import { cp, rm } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { credentials } from '@grpc/grpc-js';
import { type Document, MongoClient } from 'mongodb';
import { describe, expect, inject, test } from 'vitest';

import { exitCodes } from '../../src/cli/exit-codes.js';
import { Key, RevocationReason } from '../../src/gen/keyreeve/v1/key.js';
import {
  OrganizationServiceClient,
  UpdateOrganizationRequest,
  type UpdateOrganizationResponse,
} from '../../src/gen/keyreeve/v1/organization_service.js';
import { Decision } from '../../src/gen/keyreeve/v1/verification.js';
import { call } from '../support/call.js';
import { type Run, runCli } from '../support/cli.js';
import { makeGuardedFolder } from '../support/guard.js';
import { startKafka } from '../support/kafka.js';
import { scrape } from '../support/metrics.js';
import { inOwnDatabase } from '../support/mongodb-store.js';
import { aUser, type Issued, type Organization, Product } from '../support/product.js';
import { type Service, type ServiceSettings, startService } from '../support/service.js';

const TEST_MS = 180_000;
/** For its metrics. */
const HTTP = { KEYREEVE_HTTP_LISTEN: '127.0.0.1:0' };
const require = createRequire(import.meta.url);
// From its source, as the command beside it runs in the test's own process.
const program = [
  ...['--import', pathToFileURL(require.resolve('tsx')).href],
  ...[fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url)), 'serve'],
];

/** A store that can be copied away and put back, and how its service is set. */
interface Stack extends AsyncDisposable {
  readonly settings: ServiceSettings;
  readonly sink: readonly string[];
  /** While the service is stopped. */
  backUp(service: Service): Promise<void>;
  putBack(service: Service): Promise<void>;
}

describe.each([
  ['SQLite and a file', sqliteAndFile],
  ['MongoDB and Kafka', () => mongodbAndKafka(inject('kafkaBrokers'))],
])('with %s', (_, openStack) => {
  test(
    'a backup that is put back is not served from until what it forgot is revoked again',
    { timeout: TEST_MS },
    async () => {
      await using stack = await openStack();
      await using service = await startService(stack.settings, { program });
      const acme = openHotmetal(service);
      const before = await acme.createAll('revoked', 'rotated', 'disabled', 'shortened', 'narrowed', 'kept');
      const other = acme.product.newOrganization();
      const suspended = await other.create({ name: 'suspended' });
      await published(service, 7);
      expect(await service.stop()).toBe(0);
      await stack.backUp(service);

      await service.restart();
      await acme.organization.revokeById(before.revoked.key, { reason: RevocationReason.COMPROMISED });
      const successor = await acme.organization.rotate(before.rotated.key, { overlap: { seconds: 0n, nanos: 0 } });
      await acme.update(before.disabled, { key: Key.fromPartial({ disabled: true }), updateMask: ['disabled'] });
      const soon = { seconds: BigInt(Math.floor(Date.now() / 1000) + 3600), nanos: 0 };
      await acme.update(before.shortened, { key: Key.fromPartial({ expireTime: soon }), updateMask: ['expire_time'] });
      await acme.update(before.narrowed, { key: Key.fromPartial({ scopes: ['read'] }), updateMask: ['scopes'] });
      await suspend(service, other);
      const { created } = await acme.createAll('created');
      await published(service, 7);
      expect(await service.stop()).toBe(0);
      await stack.putBack(service);

      await expect(service.restart()).rejects.toThrow(
        /ended with [1-9]\d* instead .*cannot start: the audit sink \(.+\) holds 7 events of 2 organizations that the store lacks.*keyreeve reconcile/s,
      );
      const run = (...args: string[]): Promise<Run> => runCli(args, { env: envOf(service, stack) });
      const found = await run('reconcile');
      expect(found.exitCode).toBe(exitCodes.no);
      expect(found.stdout).toMatch(/the store lacks 7 events of 2 organizations/);
      for (const line of [
        `revoked: ${before.revoked.key.keyId} ("revoked", ${before.revoked.key.display}), COMPROMISED, by event 7`,
        `revoked: ${before.rotated.key.keyId} ("rotated", ${before.rotated.key.display}), SUPERSEDED, by event 8`,
        `switched off: ${before.disabled.key.keyId}`,
        `ended at ${new Date(Number(soon.seconds) * 1000).toISOString()}: ${before.shortened.key.keyId}`,
        `left with the scopes read: ${before.narrowed.key.keyId}`,
        `suspended, by event 2`,
        `gone for good: ${successor.key.keyId}`,
        `gone for good: ${created.key.keyId}`,
        'Nothing was changed',
      ]) {
        expect(found.stdout).toContain(line);
      }
      expect(await run('reconcile')).toEqual(found);
      const applied = await run('reconcile', '--apply');
      expect(applied).toMatchObject({ exitCode: exitCodes.ok, stderr: '' });
      expect(await run('reconcile', '--apply')).toMatchObject({
        exitCode: exitCodes.ok,
        stdout: expect.stringContaining('the store has them all') as string,
      });

      await service.restart();
      const decide = async (issued: Issued, ...requiredScopes: string[]) =>
        (await acme.product.verify(issued.credential, { requiredScopes })).decision;
      expect(await decide(before.revoked)).toBe(Decision.REVOKED);
      expect(await decide(before.rotated)).toBe(Decision.REVOKED);
      expect(await decide(before.disabled)).toBe(Decision.DISABLED);
      expect(await decide(before.shortened)).toBe(Decision.VALID);
      expect(await decide(before.narrowed, 'read')).toBe(Decision.VALID);
      expect(await decide(before.narrowed, 'write')).toBe(Decision.INSUFFICIENT_SCOPE);
      expect(await decide(before.kept)).toBe(Decision.VALID);
      expect(await decide(suspended)).toBe(Decision.ORGANIZATION_SUSPENDED);
      expect(await decide(successor)).toBe(Decision.NOT_FOUND);
      expect(await decide(created)).toBe(Decision.NOT_FOUND);
      const [shortened] = (await acme.organization.list()).filter(({ name }) => name === 'shortened');
      expect(shortened?.expireTime).toEqual(soon);
      await acme.createAll('afterwards');

      await published(service, 7);
      expect(await service.stop()).toBe(0);
      for (const source of [[...stack.sink, '--against', 'store'], ['--store']]) {
        const { exitCode, stdout } = await run(
          'audit',
          'verify',
          ...source.map((part) => part.replace('DATA', service.dataDir)),
        );
        expect(stdout).toContain(' of 2 organizations read: 0 faults.');
        expect(exitCode).toBe(exitCodes.ok);
      }
      // What the start looked at, no start looks at again.
      await service.restart();
      expect(service.output().split('audit check: the store has all that was published')).toHaveLength(2);
    },
  );
});

test(
  'a store that was put back while Kafka is away is served from no longer than that',
  { timeout: TEST_MS },
  async () => {
    await using kafka = await startKafka();
    await using stack = await mongodbAndKafka(kafka.brokers);
    await using service = await startService(stack.settings, { program });
    const acme = openHotmetal(service);
    const { revoked } = await acme.createAll('revoked');
    await published(service, 1);
    await service.stop();
    await stack.backUp(service);
    await service.restart();
    await acme.organization.revokeById(revoked.key);
    await published(service, 1);
    await service.stop();
    await stack.putBack(service);
    await kafka.stop();

    await service.restart();
    expect(await acme.product.decisionOn(revoked.credential)).toBe(Decision.VALID);
    await kafka.restart();
    await service.ended();
    expect(await service.stop()).toBe(exitCodes.unavailable);
    expect(service.output()).toContain('holds 1 event of 1 organization that the store lacks');

    // It published nothing of its own, so the backup can be reconciled.
    const reconciled = await runCli(['reconcile', '--apply'], { env: envOf(service, stack) });
    expect(reconciled).toMatchObject({ exitCode: exitCodes.ok });
    await service.restart();
    expect(await acme.product.decisionOn(revoked.credential)).toBe(Decision.REVOKED);
  },
);

interface Hotmetal {
  readonly product: Product;
  readonly organization: Organization;
  createAll<Name extends string>(...names: Name[]): Promise<Record<Name, Issued>>;
  update(issued: Issued, fields: Parameters<Organization['update']>[1]): Promise<unknown>;
}

function openHotmetal(service: Service): Hotmetal {
  const product = new Product('hotmetal', aUser('ada'));
  product.begin(service);
  const organization = product.newOrganization();
  return {
    product,
    organization,
    async createAll(...names) {
      const issued: [string, Issued][] = [];
      for (const name of names) issued.push([name, await organization.create({ name, scopes: ['read', 'write'] })]);
      return Object.fromEntries(issued) as Record<(typeof names)[number], Issued>;
    },
    update: ({ key }, fields) => organization.update({ $case: 'keyId', value: key.keyId }, fields),
  };
}

async function suspend({ address }: Service, { ref }: Organization): Promise<void> {
  const organizations = new OrganizationServiceClient(address, credentials.createInsecure());
  const fields = { organization: { suspended: true }, updateMask: ['suspended'], actor: aUser('ada') };
  const request = UpdateOrganizationRequest.fromPartial({ ...ref, ...fields });
  await call<UpdateOrganizationResponse>((done) => organizations.updateOrganization(request, done));
  organizations.close();
}

/** Resolves once it has published so many events since it was started: one that ends waits for seconds only. */
async function published({ httpAddress }: Service, events: number): Promise<void> {
  const count = async () => (await scrape(httpAddress)).sum('keyreeve_audit_published_events_total');
  await expect.poll(count).toBe(events);
}

function envOf({ dataDir }: Service, { settings }: Stack): NodeJS.ProcessEnv {
  return { KEYREEVE_DATA_DIR: dataDir, ...settings };
}

async function sqliteAndFile(): Promise<Stack> {
  const folder = await makeGuardedFolder(join(tmpdir(), 'keyreeve-backup-'));
  const files = ['keyreeve.db', 'keyreeve.db-wal', 'keyreeve.db-shm'];
  const copy = async (from: string, to: string) => {
    for (const file of files) {
      await rm(join(to, file), { force: true });
      await cp(join(from, file), join(to, file)).catch(() => undefined); // a store that was closed has no log
    }
  };
  return {
    settings: HTTP,
    sink: ['--file', 'DATA/audit.jsonl'],
    backUp: ({ dataDir }) => copy(dataDir, folder.path),
    putBack: ({ dataDir }) => copy(folder.path, dataDir),
    [Symbol.asyncDispose]: () => folder[Symbol.asyncDispose](),
  };
}

async function mongodbAndKafka(brokers: readonly string[]): Promise<Stack> {
  const uri = inOwnDatabase(inject('mongodbUri'));
  // As they are stored: no number becomes another kind of number on the way.
  const client = await MongoClient.connect(uri, { promoteValues: false });
  const backup = new Map<string, Document[]>();
  return {
    settings: {
      ...HTTP,
      KEYREEVE_MONGODB_URI: uri,
      KEYREEVE_KAFKA_BROKERS: brokers.join(','),
      KEYREEVE_AUDIT_TOPIC: `reconcile.${randomUUID()}`,
      KEYREEVE_KAFKA_ALLOW_SINGLE_BROKER: 'true',
    },
    sink: ['--topic'],
    async backUp() {
      for (const collection of await client.db().collections()) {
        backup.set(collection.collectionName, await collection.find().toArray());
      }
    },
    async putBack() {
      for (const collection of await client.db().collections()) {
        await collection.deleteMany({});
        const documents = backup.get(collection.collectionName) ?? [];
        if (documents.length > 0) await collection.insertMany(documents);
      }
    },
    [Symbol.asyncDispose]: () => client.close(),
  };
}
