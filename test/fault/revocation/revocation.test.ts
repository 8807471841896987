/** Three replicas on a replica set of three members, and access taken away all the time. The long form: `npm run soak:revocation`. */
import { randomInt } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';

import { startThreeMembers, type ThreeMembers } from '../../support/three-members.js';
import { buildProgram, changedSources } from '../program.js';
import { Random } from '../random.js';
import { kindsFound, named } from '../seeded-bugs.js';
import { describeRevocations } from './checker.js';
import { SEEDED_ACCESS_BUGS } from './seeded-bugs.js';
import { startRevocationStack } from './stack.js';
import { runAccessTrial } from './trial.js';

const TIMEOUT_MS = 300_000;
const LEASE_MS = 2500;
const seed = randomInt(2 ** 31);

let mongodb: ThreeMembers;
beforeAll(async () => {
  mongodb = await startThreeMembers();
}, TIMEOUT_MS);
afterAll(async () => {
  await mongodb[Symbol.asyncDispose]();
});

test(
  `what was taken away stays away on every replica, whatever happens to them (seed ${seed})`,
  { timeout: TIMEOUT_MS },
  async () => {
    await using program = await buildProgram();
    await using stack = await startRevocationStack({ program, mongodb, leaseMs: [LEASE_MS, LEASE_MS, LEASE_MS] });
    const schedule = [
      ['a replica paused for longer than its lease', 'a replica killed and started anew'],
      ['a change stream that stalls while all else goes on', 'a replica cut off from MongoDB'],
      ["MongoDB's primary killed"],
    ];
    expect(describeRevocations(await runAccessTrial(stack, { random: new Random(seed), schedule }))).toBe('');
  },
);

/** The others take too long for every run. */
const TRIED = [
  'memory answers whether the lease is alive or not',
  'a change is acknowledged before it is applied',
  'a batch answers from memory whether the lease is alive or not',
];

test.for(named(SEEDED_ACCESS_BUGS, TRIED))(
  'the checker finds that $name',
  { timeout: TIMEOUT_MS },
  async ({ replacements, scenario, caughtAs }) => {
    await using broken = await buildProgram(replacements);
    expect(await kindsFound(() => scenario(broken, mongodb), caughtAs)).toContain(caughtAs);
  },
);

test.for(SEEDED_ACCESS_BUGS)('the bug can still be put into the source: $name', ({ replacements }) => {
  expect(changedSources(replacements).size).toBeGreaterThan(0);
});

test('docs/revocation.md lists the bugs', async () => {
  const page = await readFile(new URL('../../../docs/revocation.md', import.meta.url), 'utf8');
  const table = page.slice(page.indexOf('| bug '));
  const rows = [...table.matchAll(/^\| (.+?) +\| .+? +\| (.+?) +\|$/gm)].slice(2);
  expect(rows.map(([, name]) => name)).toEqual(SEEDED_ACCESS_BUGS.map(({ name }) => name));
  for (const [at, { caughtAs }] of SEEDED_ACCESS_BUGS.entries()) expect(rows[at]?.[2]).toContain(`\`${caughtAs}\``);
});
