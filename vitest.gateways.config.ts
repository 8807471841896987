import { defineConfig } from 'vitest/config';

/** With real programs that `npm test` does without: nginx, Caddy and promtool. */
export default defineConfig({
  test: {
    name: 'gateways',
    include: ['test/gateways/**/*.test.ts'],
    // The count comes last: .ci/run looks for its line.
    reporters: ['default', './test/support/count-reporter.ts'],
    maxWorkers: 3,
    // Above what fetching a gateway takes, once.
    testTimeout: 90_000,
    hookTimeout: 300_000,
  },
});
