/** The metrics, as Prometheus asks for them. Nothing in them is anybody's secret, so they are for whoever comes. */
import type { Registry } from 'prom-client';

import type { Routes } from './server.js';

export function metricsRoutes(registry: Pick<Registry, 'metrics' | 'contentType'>): Routes {
  return {
    async '/metrics'(_request, response) {
      const text = await registry.metrics();
      response.writeHead(200, { 'content-type': registry.contentType }).end(text);
    },
  };
}
