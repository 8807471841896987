/** What a key takes that is kept in memory. */
import { fileURLToPath } from 'node:url';

import { runCommand } from '../../support/run-command.js';
import type { Bench, Scenario } from '../bench.js';
import { atMost, type Section, toShort } from '../measured.js';

const COUNTS = [100_000, 1_000_000];
const GOAL_BYTES = 1536;
const PROGRAM = fileURLToPath(new URL('../servers/memory.mjs', import.meta.url));

export const memory: Scenario = {
  name: 'memory',
  what: 'what a key in memory takes, of 100,000 and of 1,000,000',
  measure,
};

interface Taken {
  readonly heapBytes: number;
  readonly residentBytes: number;
}

async function measure(bench: Bench): Promise<Section> {
  const taken: Taken[] = [];
  for (const count of COUNTS) {
    bench.say(`memory: ${count.toLocaleString('en-US')} keys`);
    const { stdout } = await runCommand(process.execPath, ['--expose-gc', PROGRAM, `${count}`]);
    taken.push(JSON.parse(stdout) as Taken);
  }
  const most = taken.at(-1)?.residentBytes ?? Number.NaN;
  return {
    title: 'Memory',
    text:
      'A process of its own fills the service’s cache and has each key encoded, as the first verification does; what it ' +
      'takes more than before, after a garbage collection, is shared out among the keys. Each has two scopes, a label, ' +
      'an expiry, and shares its organization with 99 others.',
    head: ['keys', 'heap and buffers: bytes a key', 'resident: bytes a key'],
    rows: COUNTS.map((count, at) => [
      count.toLocaleString('en-US'),
      toShort(taken[at]?.heapBytes ?? Number.NaN),
      toShort(taken[at]?.residentBytes ?? Number.NaN),
    ]),
    goals: [atMost('memory of a cached key, 1,000,000 keys', GOAL_BYTES, [most], ' bytes')],
    bars: [],
  };
}
