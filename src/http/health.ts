/** Health for what asks over HTTP, such as a container's probes; the same as gRPC's, in the words of a status. */
import { answerText, type Routes } from './server.js';

/** As `grpc.health.v1` tells of `keyreeve.v1.KeyService`. */
export type IsReady = () => boolean;

/** `/healthz`: the process is up. `/readyz`: it can answer calls now; 503 while its store is away, and while it ends. */
export function healthRoutes(isReady: IsReady): Routes {
  return {
    '/healthz': (_request, response) => answerText(response, 200, 'ok\n'),
    '/readyz': (_request, response) =>
      isReady() ? answerText(response, 200, 'ready\n') : answerText(response, 503, 'not ready\n'),
  };
}
