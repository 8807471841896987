/** Starts the shared servers before the first test file that needs them, and stops them after the last. */
import type { TestProject } from 'vitest/node';
import { openSharedServers } from './shared-servers.js';

declare module 'vitest' {
  interface ProvidedContext {
    /** A replica set's URI that names no database. */
    mongodbUri: string;
    /** Each `host:port`. */
    kafkaBrokers: string[];
  }
}

export default async function setup({ vitest }: TestProject): Promise<(() => Promise<void>) | undefined> {
  // vitest calls this for one project after the other, and ends them all together.
  if ('mongodbUri' in vitest.getProvidedContext()) return undefined;
  const servers = await openSharedServers();
  vitest.provide('mongodbUri', servers.mongodbUri);
  vitest.provide('kafkaBrokers', servers.kafkaBrokers);
  return async () => {
    await servers[Symbol.asyncDispose]();
  };
}
