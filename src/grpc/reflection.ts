import { fromBinary, toBinary } from '@bufbuild/protobuf';
import { FileDescriptorProtoSchema, FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt';
import type { Server } from '@grpc/grpc-js';
import type { PackageDefinition } from '@grpc/proto-loader';
import { ReflectionService } from '@grpc/reflection';
import { readFileSync } from 'node:fs';

// What the compiler made of the proto files. Descriptors that proto-loader makes name types in a way that clients
// cannot resolve (`*.google.protobuf.Timestamp`).
const DESCRIPTORS = new URL('../gen/descriptors.binpb', import.meta.url);

/** Lets clients such as grpcurl ask for the API. It is public, so no token is asked for. */
export function addReflection(server: Pick<Server, 'addService'>): void {
  const { file: files } = fromBinary(FileDescriptorSetSchema, readFileSync(DESCRIPTORS));
  const definition: PackageDefinition = {
    // Of a definition the service reads the files alone.
    descriptors: {
      format: 'Protocol Buffer 3 EnumDescriptorProto',
      type: {},
      fileDescriptorProtos: files.map((file) => Buffer.from(toBinary(FileDescriptorProtoSchema, file))),
    },
  };
  new ReflectionService(definition).addToServer(server);
}
