/** One secret is planted, and whatever the service wrote is searched for it, for its halves and for its digest. */
import { createHash, randomUUID } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Metadata } from '@grpc/grpc-js';
import { BSON, MongoClient } from 'mongodb';
import { expect, inject, test } from 'vitest';

import { ActorType } from '../../src/gen/keyreeve/v1/actor.js';
import { Credential } from '../../src/gen/keyreeve/v1/credential.js';
import {
  CreateKeyRequest,
  type CreateKeyResponse,
  GetKeyRequest,
  ListKeysRequest,
  RevokeKeyRequest,
  VerifyKeyRequest,
} from '../../src/gen/keyreeve/v1/key_service.js';
import { ListAuditEventsRequest } from '../../src/gen/keyreeve/v1/audit_service.js';
import { call } from '../support/call.js';
import { consumeWithConsole } from '../support/kafka.js';
import { type Service, startService } from '../support/service.js';

const ACTOR = { type: ActorType.USER, id: 'ada', permissions: ['admin'] };

test('no log, error, record or event holds a credential or a half of it: SQLite and a file', async () => {
  await using service = await startService({ KEYREEVE_LOG_LEVEL: 'trace' });
  const { secrets, seen } = await plant(service);
  expect(await service.stop()).toBe(0);
  const files = await readdir(service.dataDir);
  expect(files).toContain('keyreeve.db');
  expect(files).toContain('audit.jsonl');
  const written = await Promise.all(files.map((file) => readFile(join(service.dataDir, file), 'latin1')));
  expectNone(secrets, [...seen, ...files, ...written, service.output()].join('\n'));
  expect(await readFile(join(service.dataDir, 'audit.jsonl'), 'utf8')).not.toMatch(digestsOf(secrets));
});

test('no log, error, record or event holds a credential or a half of it: MongoDB and Kafka', async () => {
  const database = `canary_${randomUUID().slice(0, 8)}`;
  const topic = `canary.${randomUUID()}`;
  const uri = new URL(inject('mongodbUri'));
  uri.pathname = `/${database}`;
  await using service = await startService({
    KEYREEVE_LOG_LEVEL: 'trace',
    KEYREEVE_MONGODB_URI: uri.toString(),
    KEYREEVE_KAFKA_BROKERS: inject('kafkaBrokers').join(','),
    KEYREEVE_AUDIT_TOPIC: topic,
    KEYREEVE_KAFKA_ALLOW_SINGLE_BROKER: 'true',
  });
  const { secrets, seen, events } = await plant(service);
  const messages = await consumeWithConsole(inject('kafkaBrokers'), topic, { count: events });
  const published = messages.map(({ key, value }) => key + value).join('\n');
  expect(published).not.toMatch(digestsOf(secrets));
  const records = await dump(uri.toString());
  expect(records).toContain('evt_');
  expect(await service.stop()).toBe(0);
  expectNone(secrets, [...seen, published, records, service.output()].join('\n'));
});

/** Puts a bearer token and a pair's secret through every call, right and wrong, and gathers all that was answered. */
async function plant(service: Service): Promise<{ secrets: string[]; seen: string[]; events: number }> {
  const seen: string[] = [];
  const secrets: string[] = [];
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
  for (const keyspace of ['hookdeploy', 'metal']) {
    const organization = { keyspace, organizationId: 'acme' };
    const actor = { ...ACTOR, permissions: ['admin', 'api_keys.manage'] };
    const create = () =>
      call<CreateKeyResponse>((done) =>
        service.keys.createKey(
          CreateKeyRequest.fromPartial({ ...organization, actor, name: 'ci', requestId: 'r1' }),
          done,
        ),
      );
    const { key, credential } = await create();
    const secret = secretOf(credential);
    secrets.push(secret);
    const again = await record(create());
    expect(again?.replayed).toBe(true);
    const credentials = [credential, Credential.fromPartial({ kind: { $case: 'bearerToken', value: secret } })];
    for (const presented of credentials) {
      for (const named of [keyspace, '', 'metlo', 'nowhere']) {
        const request = VerifyKeyRequest.fromPartial({ keyspace: named, credential: presented });
        await record(call((done) => service.keys.verifyKey(request, done)));
      }
    }
    // Where a hurried caller could put it by mistake. Errors name the field, never the input.
    const misplaced: (() => Promise<unknown>)[] = [
      () =>
        call((done) =>
          service.keys.createKey(
            CreateKeyRequest.fromPartial({ ...organization, actor, name: 'x', type: secret }),
            done,
          ),
        ),
      () =>
        call((done) =>
          service.keys.createKey(
            CreateKeyRequest.fromPartial({ ...organization, actor, name: 'x', scopes: [`${secret} `] }),
            done,
          ),
        ),
      () =>
        call((done) =>
          service.keys.listKeys(ListKeysRequest.fromPartial({ keyspace: secret, organizationId: 'acme' }), done),
        ),
      () =>
        call((done) =>
          service.keys.listKeys(ListKeysRequest.fromPartial({ ...organization, pageToken: secret }), done),
        ),
      () =>
        call((done) =>
          service.keys.listKeys(ListKeysRequest.fromPartial({ ...organization, organizationId: `${secret}/` }), done),
        ),
      () =>
        call((done) =>
          service.keys.getKey(
            GetKeyRequest.fromPartial({ ...organization, selector: { selector: { $case: 'keyId', value: secret } } }),
            done,
          ),
        ),
      () =>
        call((done) => {
          const metadata = new Metadata();
          metadata.set('authorization', `Bearer ${secret}`);
          service.keys.getKey(GetKeyRequest.fromPartial({}), metadata, done);
        }),
    ];
    for (const begin of misplaced) await record(begin());
    await record(
      call((done) =>
        service.keys.revokeKey(
          RevokeKeyRequest.fromPartial({
            ...organization,
            actor,
            selector: { selector: { $case: 'keyId', value: key?.keyId ?? '' } },
          }),
          done,
        ),
      ),
    );
    await record(call((done) => service.keys.listKeys(ListKeysRequest.fromPartial(organization), done)));
    await record(call((done) => service.audit.listAuditEvents(ListAuditEventsRequest.fromPartial(organization), done)));
  }
  return { secrets, seen, events: 4 };
}

function secretOf(credential: Credential | undefined): string {
  switch (credential?.kind?.$case) {
    case 'bearerToken':
      return credential.kind.value;
    case 'client':
      return credential.kind.value.secret;
    case undefined:
      throw new Error('the answer to a create has no credential');
  }
}

function expectNone(secrets: readonly string[], text: string): void {
  for (const secret of secrets) {
    // The prefix and four characters are shown on purpose: the halves leave them out.
    const body = secret.replace(/^hd_live_/, '');
    const middle = Math.floor(body.length / 2);
    for (const part of [secret, body.slice(0, middle), body.slice(middle)]) expect(text.includes(part)).toBe(false);
    expect(text.includes(Buffer.from(secret).toString('base64').slice(0, 30))).toBe(false);
  }
}

function digestsOf(secrets: readonly string[]): RegExp {
  const digests = secrets.map((secret) => createHash('sha256').update(secret).digest());
  const texts = digests.flatMap((digest) => [digest.toString('hex'), digest.toString('base64').slice(0, 40)]);
  return new RegExp(texts.map((text) => text.replaceAll('+', '\\+')).join('|'));
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
