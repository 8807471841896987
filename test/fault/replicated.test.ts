/** Two replicas on a replica set of three members and Kafka: all of them killed, paused and cut off from each other. */
import { randomInt } from 'node:crypto';
import { expect, test } from 'vitest';

import { describe } from './checker.js';
import { buildProgram } from './program.js';
import { Random } from './random.js';
import { named } from './seeded-bugs.js';
import { startReplicatedStack } from './stack.js';
import { runTrial } from './trial.js';

const TIMEOUT_MS = 400_000;
const seed = randomInt(2 ** 31);

test(
  `nothing is lost, doubled or told wrongly, whatever goes away (seed ${seed})`,
  { timeout: TIMEOUT_MS },
  async () => {
    await using program = await buildProgram();
    await using stack = await startReplicatedStack({ program });
    const faults = named(stack.faults, [
      'replica 0 killed',
      "MongoDB's primary killed",
      'dies before-answer',
      'dies before-mark',
      'dies while-leading',
      "MongoDB's primary paused until it is deposed, and woken up",
      "MongoDB's primary behind a network that swallows",
      "MongoDB's primary half-closed",
      'Kafka killed',
      'Kafka paused',
    ]);
    expect(describe(await runTrial(stack, { random: new Random(seed), faults }))).toBe('');
  },
);
