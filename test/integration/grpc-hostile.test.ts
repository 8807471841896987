/** Bytes, headers and timing that no well-behaved client sends: each has its answer, and the process stays healthy. */
import { once } from 'node:events';
import { connect, type Settings } from 'node:http2';
import { gzipSync } from 'node:zlib';
import { Metadata } from '@grpc/grpc-js';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';

import {
  CreateKeyRequest,
  type CreateKeyResponse,
  VerifyKeyRequest,
  type VerifyKeyResponse,
} from '../../src/gen/keyreeve/v1/key_service.js';
import { Decision } from '../../src/gen/keyreeve/v1/verification.js';
import { breakable, type Breakage } from '../support/breakable-store.js';
import { call } from '../support/call.js';
import { create, startServer, type TestServer, toCreate, toldBy } from '../support/grpc-server.js';
import { RawClient, toFrame } from '../support/raw-grpc.js';
import { organizationsOf } from '../support/store-calls.js';

const CREATE = '/keyreeve.v1.KeyService/CreateKey';
const VERIFY = '/keyreeve.v1.KeyService/VerifyKey';
const CHECK = '/grpc.health.v1.Health/Check';
const WATCH = '/grpc.health.v1.Health/Watch';
const REFLECT = '/grpc.reflection.v1.ServerReflection/ServerReflectionInfo';
const BYTES_MAX = 256 * 1024;
const RST_CANCEL = 8;

let service: TestServer;
let raw: RawClient;
let wellFormed: string;
const breakage: Breakage = {};
beforeAll(async () => {
  service = await startServer({ wrap: (store) => breakable(store, breakage) });
  raw = new RawClient(service.address);
  const { credential } = await create(service, { organizationId: 'healthy' });
  wellFormed = credential.kind?.$case === 'bearerToken' ? credential.kind.value : '';
});
afterAll(async () => {
  raw[Symbol.dispose]();
  await service[Symbol.asyncDispose]();
});
afterEach(async () => {
  delete breakage.before;
  // Whatever was sent, the next client is served.
  await create(service, { organizationId: 'healthy' });
});

const aCreate = () => CreateKeyRequest.encode(toCreate({ name: 'PLACEHOLDER' })).finish();

/** The message with other bytes in the place of the name's first. */
function withName(bytes: readonly number[]): Buffer {
  const message = Buffer.from(aCreate());
  message.set(bytes, message.indexOf('PLACEHOLDER'));
  return message;
}

const messages: Record<string, [path: string, message: Uint8Array, code: string, reason?: string]> = {
  'a name that is not UTF-8': [CREATE, withName([0xff, 0xfe]), 'INVALID_ARGUMENT', 'TEXT_INVALID'],
  'a name with a lone surrogate': [CREATE, withName([0xed, 0xa0, 0x80]), 'INVALID_ARGUMENT', 'TEXT_INVALID'],
  'a name cut within a character': [CREATE, withName([0xf0, 0x9f]), 'INVALID_ARGUMENT', 'TEXT_INVALID'],
  'bytes that are no message': [CREATE, Buffer.from([0xff, 0xff, 0xff, 0xff]), 'INTERNAL'],
  'a message cut off': [CREATE, aCreate().subarray(0, -3), 'INTERNAL'],
  'a length beyond the message': [CREATE, Buffer.from([0x0a, 0xff, 0xff, 0xff, 0x7f]), 'INTERNAL'],
  'a field of the wrong wire type': [CREATE, Buffer.from([0x08, 0x01]), 'INVALID_ARGUMENT', 'KEYSPACE_REQUIRED'],
  'an empty message': [CREATE, Buffer.alloc(0), 'INVALID_ARGUMENT', 'KEYSPACE_REQUIRED'],
  'unknown fields': [CREATE, Buffer.from([0xfa, 0x3f, 0x02, 0x68, 0x69]), 'INVALID_ARGUMENT', 'KEYSPACE_REQUIRED'],
  'a message beyond the limit': [CREATE, Buffer.alloc(BYTES_MAX + 1), 'RESOURCE_EXHAUSTED'],
  'a credential of 1 MB': [VERIFY, verifying('x'.repeat(1_000_000)), 'RESOURCE_EXHAUSTED'],
  'a health check for text that is not UTF-8': [CHECK, Buffer.from([0x0a, 0x03, 0xed, 0xa0, 0x80]), 'NOT_FOUND'],
  'a health check that is no message': [CHECK, Buffer.from([0x0a, 0xff]), 'INTERNAL'],
  'a reflection request that is no message': [REFLECT, Buffer.from([0x0a, 0xff]), 'INTERNAL'],
  'a call that does not exist': ['/keyreeve.v1.KeyService/DropKeys', aCreate(), 'UNIMPLEMENTED'],
};

test.for(Object.entries(messages))('%s is answered as such', async ([, [path, message, code, reason]]) => {
  const told = await raw.call(path, message);
  expect(told?.code).toBe(code);
  expect(told?.reason).toBe(reason);
  await expectNothingCreated();
});

test.for([
  ['a bomb that unpacks to 64 MiB', gzipSync(Buffer.alloc(64 * 1024 * 1024)), 'gzip', 'RESOURCE_EXHAUSTED'],
  ['what claims to be packed and is not', Buffer.from('plain'), 'gzip', 'INTERNAL'],
  ['a packing that nobody knows', Buffer.from('plain'), 'zstd', 'UNIMPLEMENTED'],
] as const)('%s is refused', async ([, packed, encoding, code]) => {
  const { stream, told } = raw.begin(CREATE, { 'grpc-encoding': encoding });
  const frame = toFrame(packed);
  frame[0] = 1;
  stream.end(frame);
  expect((await told)?.code).toBe(code);
});

test('a frame that announces 4 GiB is refused before they come', async () => {
  const { stream, told } = raw.begin(CREATE);
  stream.end(Buffer.from([0, 0xff, 0xff, 0xff, 0xff, 0]));
  expect((await told)?.code).toBe('RESOURCE_EXHAUSTED');
});

test('no message and two messages are no unary call', async () => {
  for (const bytes of [Buffer.alloc(0), Buffer.concat([toFrame(aCreate()), toFrame(aCreate())])]) {
    const { stream, told } = raw.begin(CREATE);
    stream.end(bytes);
    expect((await told)?.code).toBe('UNIMPLEMENTED');
  }
  await expectNothingCreated();
});

test('headers beyond 64 KiB, and a deadline that is none, get no further than the transport', async () => {
  using own = new RawClient(service.address);
  const told = await own.call(CREATE, aCreate(), { authorization: `Bearer ${'x'.repeat(100_000)}` });
  expect(told?.code).not.toBe('OK');
  expect((await raw.call(CREATE, aCreate(), { 'grpc-timeout': 'soon' }))?.code).toBe('INTERNAL');
  await expectNothingCreated();
});

test('clients that reset their streams at every stage leave nothing behind', async () => {
  using own = new RawClient(service.address);
  const calls = Array.from({ length: 60 }, (_, n) => {
    const { stream, told } = own.begin([CREATE, VERIFY, WATCH][n % 3] ?? WATCH);
    if (n % 4 === 1) stream.write(toFrame(aCreate()).subarray(0, 7));
    if (n % 4 === 2) stream.write(toFrame(Buffer.alloc(0)));
    if (n % 4 === 3) stream.end(toFrame(Buffer.alloc(0)));
    setImmediate(() => stream.close(RST_CANCEL));
    return told;
  });
  await Promise.all(calls);
  await expectNothingCreated();
});

test('a watch of a service that does not exist says so and stays open', async () => {
  const { stream, told } = raw.begin(WATCH);
  stream.end(toFrame(Buffer.from([0x0a, 0x01, 0x78])));
  const bytes = await new Promise<Buffer>((resolve) => stream.once('data', resolve));
  const SERVICE_UNKNOWN = 3;
  expect([...bytes.subarray(5)]).toEqual([0x08, SERVICE_UNKNOWN]);
  expect(stream.closed).toBe(false);
  stream.close(RST_CANCEL);
  await told;
});

test('a credential of 1 KiB, and one that is not UTF-8, are decisions and no errors', async () => {
  const request = { ...VerifyKeyRequest.fromPartial({}), credential: bearer('x'.repeat(1024)) };
  const answer = await call<VerifyKeyResponse>((done) => service.keys.verifyKey(request, done));
  expect(answer.decision).toBe(Decision.MALFORMED);
  const message = Buffer.from(verifying('shop_abc'));
  message[message.indexOf('shop_abc')] = 0xff;
  expect(await raw.call(VERIFY, message)).toEqual({ code: 'OK' });
});

test('a call whose deadline has passed changes nothing, and one with time left does', async () => {
  const changes: string[] = [];
  breakage.before = (name) => {
    if (name !== 'ping') changes.push(name);
    return Promise.resolve();
  };
  for (const timeout of ['1n', '0S']) {
    expect(await raw.call(CREATE, aCreate(), { 'grpc-timeout': timeout })).toEqual({ code: 'DEADLINE_EXCEEDED' });
  }
  expect(changes).toEqual([]);
  const options = { deadline: Date.now() + 10_000 };
  const request = toCreate({ organizationId: 'healthy' });
  await call<CreateKeyResponse>((done) => service.keys.createKey(request, new Metadata(), options, done));
  expect(changes).toEqual(['change']);
});

test.for([
  ['an error', new Error('a thing of the store: SECRET')],
  ['an error with a code of its own', Object.assign(new Error('coded'), { code: 5, details: 'SECRET' })],
  ['a text', 'SECRET'],
  ['nothing', undefined],
  ['null', null],
  ['an object', { refused: 'NOTHING_KNOWN' }],
] as const)('a handler in which %s is thrown answers a bare INTERNAL', async ([, thrown]) => {
  // eslint-disable-next-line @typescript-eslint/prefer-promise-reject-errors -- a dependency may reject with anything
  breakage.before = () => Promise.reject(thrown);
  const verifyRequest = { ...VerifyKeyRequest.fromPartial({}), credential: bearer(wellFormed) };
  for (const answer of [
    call((done) => service.keys.createKey(toCreate(), done)),
    call((done) => service.keys.verifyKey(verifyRequest, done)),
  ]) {
    expect(await toldBy(answer)).toEqual({ code: 'INTERNAL' });
    await expect(answer).rejects.toThrow('13 INTERNAL: internal error');
  }
});

async function expectNothingCreated(): Promise<void> {
  const organizations = await organizationsOf(service.store);
  expect(organizations.map(({ organizationId }) => organizationId)).toEqual(['healthy']);
}

function bearer(value: string): VerifyKeyRequest['credential'] {
  return { kind: { $case: 'bearerToken', value } };
}

function verifying(token: string): Uint8Array {
  return VerifyKeyRequest.encode({ ...VerifyKeyRequest.fromPartial({}), credential: bearer(token) }).finish();
}

test('a connection is told that it may have 100 calls at a time', async () => {
  const session = connect(`http://${service.address}`);
  const [settings] = (await once(session, 'remoteSettings')) as [Settings];
  expect(settings.maxConcurrentStreams).toBe(100);
  session.destroy();
});
