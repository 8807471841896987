/** Reflection: what a client such as grpcurl fetches can be put together again, whole. */
import { create, createFileRegistry, type FileRegistry, fromBinary } from '@bufbuild/protobuf';
import { type FileDescriptorProto, FileDescriptorProtoSchema, FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt';
import { Client, credentials } from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { AuthorizationService } from '../../src/gen/envoy/service/auth/v3/external_auth.js';
import { AuditServiceService } from '../../src/gen/keyreeve/v1/audit_service.js';
import { KeyServiceService } from '../../src/gen/keyreeve/v1/key_service.js';
import { OrganizationServiceService } from '../../src/gen/keyreeve/v1/organization_service.js';
import { startServer, type TestServer } from '../support/grpc-server.js';

let service: TestServer;
beforeAll(async () => {
  service = await startServer();
});
afterAll(() => service[Symbol.asyncDispose]());

describe.for(['v1', 'v1alpha'] as const)('by reflection %s', (version) => {
  const ask = (request: object) => reflect(service.address, version, request);

  test('the services are listed, health among them', async () => {
    const { listServicesResponse } = await ask({ listServices: '*' });
    expect(listServicesResponse?.service.map(({ name }) => name).sort()).toEqual([
      'envoy.service.auth.v3.Authorization',
      'grpc.health.v1.Health',
      'keyreeve.v1.AuditService',
      'keyreeve.v1.KeyService',
      'keyreeve.v1.OrganizationService',
    ]);
  });

  test('every file of a service links, and describes each call with its own request and response', async () => {
    for (const service of [KeyServiceService, AuditServiceService, OrganizationServiceService, AuthorizationService]) {
      for (const { path } of Object.values<{ path: string }>(service)) {
        const [, name = '', method = ''] = path.split('/');
        const registry = await link(ask, name);
        const described = registry.getService(name)?.methods.find((one) => one.name === method);
        const ofIts = name.slice(0, name.lastIndexOf('.'));
        expect(described?.input.typeName).toBe(`${ofIts}.${method}Request`);
        expect(described?.output.typeName).toBe(`${ofIts}.${method}Response`);
      }
    }
  });

  test('types of other packages are named so that clients find them', async () => {
    const registry = await link(ask, 'keyreeve.v1.Key');
    expect(registry.getMessage('keyreeve.v1.Key')?.field.createTime?.message?.typeName).toBe(
      'google.protobuf.Timestamp',
    );
  });

  test.for([
    'grpc.health.v1.Health',
    'grpc.health.v1.HealthListResponse',
    'google.rpc.ErrorInfo',
    'google.rpc.BadRequest',
    'google.rpc.QuotaFailure',
    'google.rpc.RetryInfo',
  ])('%s can be looked up: health and the details of errors', async (name) => {
    const registry = await link(ask, name);
    expect(registry.get(name)?.typeName).toBe(name);
  });

  test.for(['keyreeve.v1.Nothing', 'constructor', '__proto__'])('of %s nothing is known', async (name) => {
    const { fileDescriptorResponse } = await ask({ fileContainingSymbol: name });
    expect(Buffer.concat(fileDescriptorResponse?.fileDescriptorProto ?? [])).toHaveLength(0);
  });
});

type Ask = (request: object) => Promise<ReflectionAnswer>;

interface ReflectionAnswer {
  listServicesResponse?: { service: { name: string }[] };
  fileDescriptorResponse?: { fileDescriptorProto: Uint8Array[] };
}

/** Fetches the file of a symbol and, one by one, those that it imports, and links them; throws where a type is missing. */
async function link(ask: Ask, symbol: string): Promise<FileRegistry> {
  const files = new Map<string, FileDescriptorProto>();
  const fetchOne = async (request: object): Promise<void> => {
    const { fileDescriptorResponse } = await ask(request);
    const [bytes] = fileDescriptorResponse?.fileDescriptorProto ?? [];
    if (!bytes) throw new Error(`no file for ${JSON.stringify(request)}`);
    const file = fromBinary(FileDescriptorProtoSchema, bytes);
    for (const fileByFilename of file.dependency) if (!files.has(fileByFilename)) await fetchOne({ fileByFilename });
    // After what it imports: that is the order in which files are linked.
    files.set(file.name, file);
  };
  await fetchOne({ fileContainingSymbol: symbol });
  return createFileRegistry(create(FileDescriptorSetSchema, { file: [...files.values()] }));
}

/** One question and its answer, by the proto files that the library itself carries. */
async function reflect(address: string, version: string, request: object): Promise<ReflectionAnswer> {
  const library = dirname(createRequire(import.meta.url).resolve('@grpc/reflection/package.json'));
  const proto = join(library, `build/proto/grpc/reflection/${version}/reflection.proto`);
  const service = loadSync(proto, { oneofs: true })[`grpc.reflection.${version}.ServerReflection`];
  const method = service && 'ServerReflectionInfo' in service ? service.ServerReflectionInfo : undefined;
  if (!method || !('path' in method)) throw new Error(`reflection ${version} has no ServerReflectionInfo`);
  const client = new Client(address, credentials.createInsecure());
  try {
    const stream = client.makeBidiStreamRequest(
      method.path,
      (question: object) => method.requestSerialize(question),
      (bytes) => method.responseDeserialize(bytes) as ReflectionAnswer,
    );
    stream.write(request);
    stream.end();
    for await (const answer of stream as AsyncIterable<ReflectionAnswer>) return answer;
    throw new Error('no answer');
  } finally {
    client.close();
  }
}
