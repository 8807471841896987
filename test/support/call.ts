import type { ServiceError } from '@grpc/grpc-js';

type Callback<R> = (error: ServiceError | null, response: R) => void;

/** A unary call as a promise: `await call((done) => client.getKey(request, done))`. */
export function call<R>(begin: (callback: Callback<R>) => unknown): Promise<R> {
  return new Promise((resolve, reject) => {
    begin((error, response) => {
      if (error) reject(error);
      else resolve(response);
    });
  });
}
