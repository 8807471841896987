import { startCaddy } from './caddy.js';
import { startNginx } from './nginx.js';

/** Those that ask over HTTP. */
export const HTTP_GATEWAYS = [
  { gateway: 'nginx', start: startNginx },
  { gateway: 'Caddy', start: startCaddy },
] as const;
