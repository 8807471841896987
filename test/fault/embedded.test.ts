/** The service on SQLite and an audit file, killed at random moments, where it hurts most, and with its disk full. */
import { randomInt } from 'node:crypto';
import { expect, test } from 'vitest';

import { describe } from './checker.js';
import { FAIL_POINTS } from './fail-points.js';
import { buildProgram } from './program.js';
import { Random } from './random.js';
import { named } from './seeded-bugs.js';
import { startEmbeddedStack } from './stack.js';
import { runTrial } from './trial.js';

const TIMEOUT_MS = 400_000;
const seed = randomInt(2 ** 31);

test(
  `nothing is lost, doubled or told wrongly when the service as built is killed (seed ${seed})`,
  { timeout: TIMEOUT_MS },
  async () => {
    await using stack = await startEmbeddedStack({});
    const faults = named(stack.faults, [
      'service killed',
      'service killed',
      'disk full',
      'service killed',
      'disk full',
    ]);
    expect(describe(await runTrial(stack, { random: new Random(seed), faults }))).toBe('');
  },
);

test(
  `nothing is lost, doubled or told wrongly when it is killed between any two steps (seed ${seed})`,
  { timeout: TIMEOUT_MS },
  async () => {
    await using program = await buildProgram();
    await using stack = await startEmbeddedStack({ program });
    const others = ['store away', 'sink fails', 'clock set back and forward', 'disk full'];
    const faults = named(stack.faults, [...FAIL_POINTS.map((point) => `dies ${point}`), ...others, 'service killed']);
    expect(describe(await runTrial(stack, { random: new Random(seed), faults }))).toBe('');
  },
);
