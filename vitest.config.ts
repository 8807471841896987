import { defineConfig } from 'vitest/config';

/** Projects that share a MongoDB and a Kafka: `inject('mongodbUri')` and `inject('kafkaBrokers')` say where. */
const withServers = ['contract', 'integration', 'acceptance'].map((name) => ({
  extends: true as const,
  test: {
    name,
    include: [`test/${name}/**/*.test.ts`],
    globalSetup: ['test/support/global-setup.ts'],
    // They replace no module and no clock, so that loading everything once for each worker will do.
    isolate: false,
  },
}));

export default defineConfig({
  test: {
    // The count comes last: .ci/run looks for its line.
    reporters: ['default', './test/support/count-reporter.ts'],
    // Most of the time goes by waiting for servers, so three files side by side also where there are two cores.
    maxWorkers: 3,
    // Above what starting a server takes on a machine that is busy: it ends what hangs, and nothing else.
    testTimeout: 90_000,
    hookTimeout: 120_000,
    // Its default is a second.
    expect: { poll: { timeout: 60_000 } },
    projects: [
      { extends: true, test: { name: 'unit', include: ['test/unit/**/*.test.ts'] } },
      // These kill the servers that they start, so they share none.
      { extends: true, test: { name: 'fault', include: ['test/fault/**/*.test.ts'] } },
      ...withServers,
    ],
  },
});
