import type { Reporter, TestModule } from 'vitest/node';

/**
 * Ends the run's output with `tests: N passed, N failed`. A file or a suite that could not run counts as one failure,
 * and so does an error outside of every test, or a run of no test at all.
 */
export default class CountReporter implements Reporter {
  onTestRunEnd(modules: readonly TestModule[], errors: readonly unknown[]): void {
    const tests = modules.flatMap((module) => [...module.children.allTests()]);
    const passed = tests.filter((test) => test.result().state === 'passed').length;
    const failed = tests.filter((test) => test.result().state === 'failed').length;
    const suites = modules.flatMap((module) => [module, ...module.children.allSuites()]);
    const broken = suites.filter((suite) => suite.errors().length > 0).length + errors.length;
    const none = tests.length === 0 ? 1 : 0;
    process.stdout.write(`tests: ${passed} passed, ${failed + broken + none} failed\n`);
  }
}
