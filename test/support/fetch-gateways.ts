import { getCaddy, getNginx, getPromtool } from './server-programs.js';

/** Fetches them before the tests, which run side by side, would each do so. */
export default async function fetchGateways(): Promise<void> {
  await Promise.all([getNginx(), getCaddy(), getPromtool()]);
}
