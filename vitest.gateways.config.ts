import { defineConfig } from 'vitest/config';

/** With real programs that `npm test` does without: nginx, Caddy and promtool. */
export default defineConfig({
  test: {
    name: 'gateways',
    include: ['test/gateways/**/*.test.ts'],
    globalSetup: ['test/support/fetch-gateways.ts'],
    // The count comes last: .ci/run looks for its line.
    reporters: ['default', './test/support/count-reporter.ts'],
    maxWorkers: 3,
    // Above what starting a gateway takes on a machine that is busy.
    testTimeout: 90_000,
    hookTimeout: 120_000,
    // Its default is a second.
    expect: { poll: { timeout: 60_000 } },
  },
});
