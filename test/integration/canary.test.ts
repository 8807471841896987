/** Secrets are planted, and whatever the service wrote is searched for them, their halves and their digests. */
import { createHash, randomBytes, randomUUID } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { credentials, Metadata } from '@grpc/grpc-js';
import { BSON, MongoClient } from 'mongodb';
import { expect, inject, test } from 'vitest';

import { ActorType } from '../../src/gen/keyreeve/v1/actor.js';
import { ListAuditEventsRequest, type ListAuditEventsResponse } from '../../src/gen/keyreeve/v1/audit_service.js';
import { Credential } from '../../src/gen/keyreeve/v1/credential.js';
import type { Key, KeySelector } from '../../src/gen/keyreeve/v1/key.js';
import {
  BatchVerifyKeysRequest,
  CreateKeyRequest,
  type CreateKeyResponse,
  GetKeyRequest,
  ImportKeysItem,
  ImportKeysRequest,
  type ImportKeysResponse,
  ListKeysRequest,
  RevokeKeyRequest,
  RotateKeyRequest,
  type RotateKeyResponse,
  UpdateKeyRequest,
  VerifyKeyRequest,
} from '../../src/gen/keyreeve/v1/key_service.js';
import {
  OrganizationServiceClient,
  UpdateOrganizationRequest,
} from '../../src/gen/keyreeve/v1/organization_service.js';
import { systemRandom } from '../../src/keys/base62.js';
import { newCredential } from '../../src/keys/credential.js';
import { call } from '../support/call.js';
import { consumeWithConsole } from '../support/kafka.js';
import { scrape } from '../support/metrics.js';
import { inOwnDatabase } from '../support/mongodb-store.js';
import { type Service, type ServiceSettings, startService } from '../support/service.js';

const HTTP = { KEYREEVE_HTTP_LISTEN: '127.0.0.1:0' };
const pepper = randomBytes(32);
const storing: { how: string; settings: ServiceSettings; holdsDigests: boolean }[] = [
  { how: 'without a pepper', settings: {}, holdsDigests: true },
  { how: 'with a pepper', settings: { KEYREEVE_PEPPERS: `1:${pepper.toString('base64')}` }, holdsDigests: false },
];

test.for(storing)(
  'no log, error, event or metric holds a credential, a half of it or its digest, and no record a credential: SQLite and a file, $how',
  { timeout: 60_000 },
  async ({ settings, holdsDigests }) => {
    await using service = await startService({ KEYREEVE_LOG_LEVEL: 'trace', ...HTTP, ...settings });
    const { secrets, seen } = await plant(service);
    const metrics = await scrape(service.httpAddress);
    expect(await service.stop()).toBe(0);
    const files = await readdir(service.dataDir);
    expect(files).toContain('keyreeve.db');
    const written = await Promise.all(files.map((file) => readFile(join(service.dataDir, file), 'latin1')));
    const audit = await readFile(join(service.dataDir, 'audit.jsonl'), 'utf8');
    expect(audit).toContain('keyreeve.key.imported');
    expectNothingOf(secrets, {
      told: [...seen, audit, ...files, service.output(), metrics.text],
      stored: written,
      holdsDigests,
    });
  },
);

test.for(storing)(
  'no log, error, event or metric holds a credential, a half of it or its digest, and no record a credential: MongoDB and Kafka, $how',
  { timeout: 60_000 },
  async ({ settings, holdsDigests }) => {
    const topic = `canary.${randomUUID()}`;
    const uri = inOwnDatabase(inject('mongodbUri'));
    await using service = await startService({
      KEYREEVE_LOG_LEVEL: 'trace',
      KEYREEVE_MONGODB_URI: uri,
      KEYREEVE_KAFKA_BROKERS: inject('kafkaBrokers').join(','),
      KEYREEVE_AUDIT_TOPIC: topic,
      KEYREEVE_KAFKA_ALLOW_SINGLE_BROKER: 'true',
      ...HTTP,
      ...settings,
    });
    const { secrets, seen, events } = await plant(service);
    const metrics = await scrape(service.httpAddress);
    const messages = await consumeWithConsole(inject('kafkaBrokers'), topic, { count: events });
    const published = messages.map(({ key, value }) => key + value);
    expect(published.join('\n')).toContain('keyreeve.key.imported');
    const records = await dump(uri);
    expect(await service.stop()).toBe(0);
    expectNothingOf(secrets, {
      told: [...seen, ...published, service.output(), metrics.text],
      stored: [records],
      holdsDigests,
    });
  },
);

/** What a keyspace issued before, in its own form or, for HookDeploy, in that of its legacy. */
const FOREIGN = {
  hookdeploy: () => `hd_live_${Array.from(randomBytes(32), (byte) => (byte % 36).toString(36)).join('')}`,
  metal: () =>
    newCredential({ kind: 'pair', prefix: '', bodyLength: 49, display: 'last_four' }, [], systemRandom).secret.reveal(),
} as const;

interface Planted {
  /** Bearer tokens, and secrets of pairs. */
  readonly secrets: string[];
  /** All that was answered, but for the one answer that discloses a credential. */
  readonly seen: string[];
  readonly events: number;
}

/** Puts bearer tokens and pairs' secrets through every call, right and wrong, and gathers all that was answered. */
async function plant(service: Service): Promise<Planted> {
  const planted = { secrets: [] as string[], seen: [] as string[], events: 0 };
  const organizations = new OrganizationServiceClient(service.address, credentials.createInsecure());
  try {
    for (const keyspace of ['hookdeploy', 'metal'] as const) await plantIn(keyspace, service, organizations, planted);
  } finally {
    organizations.close();
  }
  return planted;
}

async function plantIn(
  keyspace: keyof typeof FOREIGN,
  { keys, audit }: Service,
  organizations: OrganizationServiceClient,
  planted: { secrets: string[]; seen: string[]; events: number },
): Promise<void> {
  const { secrets, seen } = planted;
  const record = async <R>(answering: Promise<R>): Promise<R | undefined> => {
    try {
      const answer = await answering;
      seen.push(toText(answer));
      return answer;
    } catch (error) {
      seen.push(error instanceof Error ? `${error.message} ${toText(Object.entries(error))}` : '');
      return undefined;
    }
  };
  const isPair = keyspace === 'metal';
  const actor = { type: ActorType.USER, id: 'ada', permissions: ['admin', 'api_keys.manage'] };
  const organization = { keyspace, organizationId: 'acme' };
  const common = { ...organization, actor };
  const sending = {
    create: (fields: Partial<CreateKeyRequest>) =>
      call<CreateKeyResponse>((done) =>
        keys.createKey({ ...CreateKeyRequest.fromPartial({ ...common, name: 'x' }), ...fields }, done),
      ),
    rotate: (fields: Partial<RotateKeyRequest>) =>
      call<RotateKeyResponse>((done) => keys.rotateKey({ ...RotateKeyRequest.fromPartial(common), ...fields }, done)),
    update: (fields: Partial<UpdateKeyRequest>) =>
      call((done) => keys.updateKey({ ...UpdateKeyRequest.fromPartial(common), ...fields }, done)),
    revoke: (fields: Partial<RevokeKeyRequest>) =>
      call((done) => keys.revokeKey({ ...RevokeKeyRequest.fromPartial(common), ...fields }, done)),
    get: (fields: Partial<GetKeyRequest>, as = new Metadata()) =>
      call((done) => keys.getKey({ ...GetKeyRequest.fromPartial(organization), ...fields }, as, done)),
    list: (fields: Partial<ListKeysRequest>) =>
      call((done) => keys.listKeys({ ...ListKeysRequest.fromPartial(organization), ...fields }, done)),
    import: (item: Partial<ImportKeysItem>, fields: Partial<ImportKeysRequest> = {}) => {
      const request = ImportKeysRequest.fromPartial(common);
      const keysToImport = [{ ...ImportKeysItem.fromPartial({ name: 'taken over' }), ...item }];
      return call<ImportKeysResponse>((done) => keys.importKeys({ ...request, keys: keysToImport, ...fields }, done));
    },
    organize: (fields: Partial<UpdateOrganizationRequest>) =>
      call((done) =>
        organizations.updateOrganization({ ...UpdateOrganizationRequest.fromPartial(common), ...fields }, done),
      ),
    verify: (presented: Credential, named: string) =>
      call((done) => keys.verifyKey(VerifyKeyRequest.fromPartial({ keyspace: named, credential: presented }), done)),
    verifyAll: (presented: readonly Credential[]) => {
      const requests = [keyspace, '', 'nowhere'].flatMap((named) =>
        presented.map((credential) => VerifyKeyRequest.fromPartial({ keyspace: named, credential })),
      );
      return call((done) => keys.batchVerifyKeys(BatchVerifyKeysRequest.fromPartial({ requests }), done));
    },
  };

  const created = await sending.create({ name: 'ci', requestId: 'r1' });
  expect((await record(sending.create({ name: 'ci', requestId: 'r1' })))?.replayed).toBe(true);
  const rotation = { selector: byId(created.key), requestId: 'r2' };
  const rotated = await sending.rotate(rotation);
  expect((await record(sending.rotate(rotation)))?.replayed).toBe(true);

  const [sent, digested] = [FOREIGN[keyspace](), FOREIGN[keyspace]()];
  const toCredential = (secret: string, clientId = `old-${secret.length}`): Credential => ({
    kind: isPair ? { $case: 'client', value: { clientId, secret } } : { $case: 'bearerToken', value: secret },
  });
  const importing = (value: Uint8Array): Partial<ImportKeysItem> => ({
    secret: { $case: 'digest', value: Buffer.from(value) },
    clientId: isPair ? 'older' : '',
  });
  const withCredential = (value: Credential): Partial<ImportKeysItem> => ({ secret: { $case: 'credential', value } });
  const ofDigested = importing(sha256(digested));
  for (const item of [withCredential(toCredential(sent)), ofDigested, ofDigested]) {
    expect((await record(sending.import(item)))?.results[0]?.result?.$case).toBe('key');
  }

  const presented: [string, Credential][] = [
    [secretOf(created.credential), created.credential ?? {}],
    [secretOf(rotated.credential), rotated.credential ?? {}],
    [sent, toCredential(sent)],
    [digested, toCredential(digested, 'older')],
  ].map(([secret, credential]) => [secret as string, Credential.fromPartial(credential as Credential)]);
  await record(sending.verifyAll(presented.map(([, credential]) => credential)));
  for (const [secret, credential] of presented) {
    secrets.push(secret);
    const bearer: Credential = { kind: { $case: 'bearerToken', value: secret } };
    await Promise.all(
      [keyspace, '', 'metlo', 'nowhere'].flatMap((named) =>
        [credential, bearer].map((one) => record(sending.verify(one, named))),
      ),
    );
    const digest = sha256(secret);
    const foreign = { organizationId: 'other' };
    const control = `${secret}\u0000`;
    const spaced = `${secret} x`;
    const selector = byId(created.key);
    // Where a hurried caller could put it by mistake. Errors name the field, never the input.
    const misplaced: (() => Promise<unknown>)[] = [
      () => sending.create({ type: secret }),
      () => sending.create({ scopes: [spaced] }),
      () => sending.create({ labels: new Map([[spaced, '']]) }),
      () => sending.create({ requestId: spaced }),
      () => sending.list({ keyspace: secret }),
      () => sending.list({ pageToken: secret }),
      () => sending.list({ organizationId: `${secret}/` }),
      () => sending.get({ selector: { selector: { $case: 'keyId', value: secret } } }),
      () => sending.get({ keyspace: '' }, withToken(secret)),
      () => sending.get({ keyspace: '' }, withTraceparent(secret)),
      () => sending.rotate({ selector: { selector: { $case: 'keyId', value: secret } } }),
      () => sending.rotate({ selector: { selector: { $case: 'clientId', value: secret } } }),
      () => sending.rotate({ selector, requestId: spaced }),
      () => sending.update({ selector, updateMask: [secret] }),
      () => sending.update({ selector, updateMask: ['disabled'], etag: secret }),
      () => sending.revoke({ selector, reasonDetail: control }),
      () => sending.organize({ updateMask: [secret] }),
      () =>
        sending.organize({
          organization: UpdateOrganizationRequest.fromPartial({ organization: { plan: secret } }).organization,
          updateMask: ['plan'],
        }),
      // The digest in another form than 32 bytes, and the token itself in its place.
      ...[digest.toString('hex'), digest.toString('base64'), secret].map(
        (text) => () => sending.import(importing(Buffer.from(text))),
      ),
      () => sending.import(importing(digest.subarray(1))),
      () => sending.import({ ...importing(digest), display: secret }),
      () => sending.import({ ...importing(digest), display: control }),
      () => sending.import({ ...importing(digest), clientId: spaced }),
      () => sending.import({ ...importing(sha256(spaced)), type: secret }),
      // Taken, as another organization has it.
      () => sending.import(importing(digest), foreign),
      () => sending.import(withCredential(toCredential(secret)), foreign),
      () => sending.import({ ...withCredential(toCredential(secret)), display: secret }),
      () => sending.import(withCredential(toCredential(`${secret}x`))),
      () => sending.import(withCredential({ kind: { $case: 'client', value: { clientId: spaced, secret } } })),
      () => sending.import(withCredential({ kind: { $case: 'bearerToken', value: isPair ? secret : `x${secret}` } })),
      () => sending.import(withCredential({ kind: { $case: 'client', value: { clientId: secret, secret: spaced } } })),
    ];
    for (const answer of await Promise.all(misplaced.map((begin) => record(begin())))) {
      // An import answers all the same, and tells of its items.
      if (answer !== undefined) expect(toText(answer)).toContain('"failure"');
    }
  }

  for (const key of [rotated.key, created.key]) await record(sending.revoke({ selector: byId(key) }));
  await record(sending.list({}));
  const listed = await record(
    call<ListAuditEventsResponse>((done) =>
      audit.listAuditEvents(ListAuditEventsRequest.fromPartial(organization), done),
    ),
  );
  // Created, rotated, two imported, two revoked: nothing that was misplaced has changed anything.
  expect(listed?.headSequence).toBe(6n);
  planted.events += 6;
}

function byId(key: Key | undefined): KeySelector {
  return { selector: { $case: 'keyId', value: key?.keyId ?? '' } };
}

function withToken(token: string): Metadata {
  const metadata = new Metadata();
  metadata.set('authorization', `Bearer ${token}`);
  return metadata;
}

function withTraceparent(text: string): Metadata {
  const metadata = new Metadata();
  metadata.set('traceparent', text);
  return metadata;
}

function secretOf(credential: Credential | undefined): string {
  switch (credential?.kind?.$case) {
    case 'bearerToken':
      return credential.kind.value;
    case 'client':
      return credential.kind.value.secret;
    case undefined:
      throw new Error('the answer has no credential');
  }
}

interface Written {
  /** Logs, answers, errors, events. */
  readonly told: readonly string[];
  /** The store; files as Latin-1, a character for each byte. */
  readonly stored: readonly string[];
  /** Whether the store is to hold the digests, as without a pepper. */
  readonly holdsDigests: boolean;
}

function expectNothingOf(secrets: readonly string[], { told, stored, holdsDigests }: Written): void {
  const [toldText, storedText] = [told.join('\n'), stored.join('\n')];
  const everything = `${toldText}\n${storedText}`;
  for (const secret of secrets) {
    // The prefix and four characters are shown on purpose: the halves leave them out.
    const body = secret.replace(/^hd_live_/, '');
    const middle = Math.floor(body.length / 2);
    for (const part of [secret, body.slice(0, middle), body.slice(middle)])
      expect(everything.includes(part)).toBe(false);
    expect(everything.includes(Buffer.from(secret).toString('base64').slice(0, 30))).toBe(false);
    expect(holds(toldText, sha256(secret))).toBe(false);
    // Where it is to be, it is found: so the search finds what it looks for.
    expect(holds(storedText, sha256(secret))).toBe(holdsDigests);
  }
  expect(holds(everything, pepper)).toBe(false);
}

/** Whether the text holds these bytes: as they are, or as a program may print them. */
function holds(text: string, bytes: Buffer): boolean {
  const list = bytes.join(',');
  const forms = [
    bytes.toString('latin1'),
    bytes.toString('hex'),
    bytes.toString('hex').toUpperCase(),
    bytes.toString('base64').slice(0, 40),
    bytes.toString('base64url').slice(0, 40),
    list,
    JSON.stringify(new Uint8Array(bytes)).slice(1, -1),
  ];
  return forms.some((form) => text.includes(form));
}

function sha256(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}

async function dump(uri: string): Promise<string> {
  await using client = new MongoClient(uri);
  const collections = await client.db().collections();
  const documents = await Promise.all(collections.map((collection) => collection.find().toArray()));
  return documents
    .flat()
    .map((document) => BSON.EJSON.stringify(document))
    .join('\n');
}

function toText(value: unknown): string {
  return JSON.stringify(value, (_key, field: unknown) => (typeof field === 'bigint' ? String(field) : field));
}
