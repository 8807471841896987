import process from 'node:process';
import {
  Client,
  credentials,
  Metadata,
  type MethodDefinition,
  type ChannelCredentials,
  type ServiceError,
} from '@grpc/grpc-js';

import { formatAddress, isLoopback } from '../../config/address.js';
import type { Connection } from './connection.js';
import { toCallFault } from './errors.js';

// Every call is safe to repeat: reads are, and the command gives each mutation a request id.
const SERVICE_CONFIG = {
  methodConfig: [
    {
      name: [{}],
      retryPolicy: {
        maxAttempts: 4,
        initialBackoff: '0.25s',
        maxBackoff: '2s',
        backoffMultiplier: 2,
        retryableStatusCodes: ['UNAVAILABLE'],
      },
    },
  ],
};

/** The service, as the commands call it. */
export class ServiceClient implements Disposable {
  readonly #client: Client;
  readonly #connection: Connection;

  constructor(connection: Connection) {
    this.#connection = connection;
    this.#client = new Client(`dns:///${formatAddress(connection.address)}`, toCredentials(connection.security), {
      'grpc.service_config': JSON.stringify(SERVICE_CONFIG),
      'grpc.primary_user_agent': 'keyreeve-cli',
      // A command that waits for the service to come back must not wait minutes after that.
      'grpc.max_reconnect_backoff_ms': 2000,
      // A proxy that the environment names for the outside cannot reach this machine's own loopback.
      ...(isLoopback(connection.address) && { 'grpc.enable_http_proxy': 0 }),
    });
  }

  /**
   * Calls a method, and again while the service is away, within the time-out. Ctrl-C cancels it.
   * @param requestId of a mutation: an error then says how to find out whether it was carried out
   * @throws CommandFault
   */
  async call<Request, Response>(
    { path, requestSerialize, responseDeserialize }: MethodDefinition<Request, Response>,
    request: Request,
    requestId?: string,
  ): Promise<Response> {
    const { token, timeoutMs, address } = this.#connection;
    const metadata = new Metadata();
    if (token) metadata.set('authorization', `Bearer ${token.reveal()}`);
    let interrupted = false;
    let cancel = (): void => undefined;
    try {
      return await new Promise<Response>((resolve, reject) => {
        const call = this.#client.makeUnaryRequest(
          path,
          requestSerialize,
          responseDeserialize,
          request,
          metadata,
          { deadline: Date.now() + timeoutMs },
          (error: ServiceError | null, response?: Response) => {
            if (response !== undefined) resolve(response);
            else reject(toCallFault(error, { server: formatAddress(address), requestId, interrupted }));
          },
        );
        cancel = () => {
          interrupted = true;
          call.cancel();
        };
        process.once('SIGINT', cancel);
      });
    } finally {
      process.off('SIGINT', cancel);
    }
  }

  [Symbol.dispose](): void {
    this.#client.close();
  }
}

function toCredentials(security: Connection['security']): ChannelCredentials {
  if (security.kind === 'plaintext') return credentials.createInsecure();
  const { signers, identity } = security;
  return credentials.createSsl(
    typeof signers === 'string' ? null : signers.given,
    identity?.privateKey,
    identity?.certificate,
    { rejectUnauthorized: signers !== 'none' },
  );
}
