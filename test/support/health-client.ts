import { Client, credentials, type ServiceError } from '@grpc/grpc-js';
import { service } from 'grpc-health-check';
import { call } from './call.js';

/** A client of `grpc.health.v1`, by names of services and of statuses. */
export class HealthClient implements Disposable {
  readonly #client: Client;

  constructor(address: string) {
    this.#client = new Client(address, credentials.createInsecure());
  }

  async check(name: string): Promise<string> {
    const { path, requestSerialize, responseDeserialize } = methodOf('Check');
    const { status } = await call<Status>((done) =>
      this.#client.makeUnaryRequest(path, requestSerialize, responseDeserialize, { service: name }, (error, answer) =>
        done(error, answer ?? { status: '' }),
      ),
    );
    return status;
  }

  watch(name: string): Watched {
    const { path, requestSerialize, responseDeserialize } = methodOf('Watch');
    const stream = this.#client.makeServerStreamRequest(path, requestSerialize, responseDeserialize, { service: name });
    const ended = new Promise<ServiceError>((resolve) => stream.once('error', resolve));
    const statuses = stream[Symbol.asyncIterator]() as AsyncIterator<Status>;
    return { next: async () => ((await statuses.next()) as IteratorResult<Status, undefined>).value?.status, ended };
  }

  [Symbol.dispose](): void {
    this.#client.close();
  }
}

export interface Watched {
  /** The next status that is told; undefined once the stream has ended without an error. */
  next(): Promise<string | undefined>;
  /** The error with which the server ends the stream. */
  readonly ended: Promise<ServiceError>;
}

interface Status {
  status: string;
}

function methodOf(name: 'Check' | 'Watch') {
  const method = service[name];
  if (!method) throw new Error(`health has no ${name}`);
  const { path, requestSerialize, responseDeserialize } = method;
  return {
    path,
    requestSerialize: (request: { service: string }): Buffer => requestSerialize(request),
    responseDeserialize: (bytes: Buffer): Status => responseDeserialize(bytes) as Status,
  };
}
