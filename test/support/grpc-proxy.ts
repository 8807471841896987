/** A service in the place of another, whose answers a test may see, change, hold back and lose. */
import {
  credentials,
  Client,
  Server,
  ServerCredentials,
  type ServerUnaryCall,
  type status,
  type UntypedHandleCall,
} from '@grpc/grpc-js';

import { AuditServiceService } from '../../src/gen/keyreeve/v1/audit_service.js';
import { KeyServiceService } from '../../src/gen/keyreeve/v1/key_service.js';
import { OrganizationServiceService } from '../../src/gen/keyreeve/v1/organization_service.js';
import { call } from './call.js';

export type MethodName = keyof typeof KeyServiceService | keyof typeof OrganizationServiceService | 'listAuditEvents';

/** A call on its way. */
export interface Passing {
  readonly method: MethodName;
  readonly request: { readonly requestId?: string; readonly requests?: readonly unknown[] };
  /** How many calls of the method there have been, this one included. */
  readonly count: number;
  /** What the service answers. */
  readonly pass: () => Promise<object>;
}

export interface GrpcProxy extends AsyncDisposable {
  readonly address: string;
  /** All that came, in order. */
  readonly passed: readonly Passing[];
  /** What becomes of a call; passes it on unless a test says otherwise. An error that it throws is answered. */
  intervene: (passing: Passing) => Promise<object>;
}

/** An error as a network or a server that fails would have it. */
export function failure(code: status): Error {
  return Object.assign(new Error('failed on purpose'), { code, details: 'failed on purpose' });
}

/** @param target `host:port` */
export async function startGrpcProxy(target: string): Promise<GrpcProxy> {
  const client = new Client(target, credentials.createInsecure());
  const server = new Server();
  const passed: Passing[] = [];
  const proxy = { intervene: ({ pass }: Passing) => pass() };

  for (const service of [KeyServiceService, OrganizationServiceService, AuditServiceService]) {
    const handlers: Record<string, UntypedHandleCall> = {};
    for (const [name, definition] of Object.entries(service)) {
      const { path, requestSerialize, responseDeserialize } = definition as typeof KeyServiceService.getKey;
      const handle = async ({ request, metadata }: ServerUnaryCall<never, object>): Promise<object> => {
        const passing: Passing = {
          method: name as MethodName,
          request,
          count: passed.filter(({ method }) => method === name).length + 1,
          pass: () =>
            call<object>((done) =>
              client.makeUnaryRequest(path, requestSerialize, responseDeserialize, request, metadata, done as never),
            ),
        };
        passed.push(passing);
        return proxy.intervene(passing);
      };
      handlers[name] = ((
        unary: ServerUnaryCall<never, object>,
        answer: (error: unknown, response?: object) => void,
      ) => {
        void handle(unary).then(
          (response) => answer(null, response),
          (error: unknown) => answer(error),
        );
      }) as UntypedHandleCall;
    }
    server.addService(service, handlers);
  }
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) => {
      if (error) reject(error);
      else resolve(bound);
    });
  });
  return Object.assign(proxy, {
    address: `127.0.0.1:${port}`,
    passed,
    [Symbol.asyncDispose](): Promise<void> {
      server.forceShutdown();
      client.close();
      return Promise.resolve();
    },
  });
}
