/** The checker itself: it names what a bug breaks, and finds nothing where there is none. All bugs: `npm run soak -- --seeded-bugs`. */
import { readFile } from 'node:fs/promises';
import { expect, test } from 'vitest';

import { buildProgram, changedSources } from './program.js';
import { Random } from './random.js';
import { kindsFound, named, SEEDED_BUGS } from './seeded-bugs.js';

const SEED = 5;
const TIMEOUT_MS = 300_000;

test.for(SEEDED_BUGS)('the bug can still be put into the source: $name', ({ replacements }) => {
  expect(changedSources(replacements).size).toBeGreaterThan(0);
});

test('docs/reliability.md lists the bugs', async () => {
  const page = await readFile(new URL('../../docs/reliability.md', import.meta.url), 'utf8');
  const table = page.slice(page.indexOf('| bug '), page.indexOf('Two are missing on purpose'));
  const rows = [...table.matchAll(/^\| (.+?) +\| .+? +\| (.+?) +\|$/gm)].slice(2);
  expect(rows.map(([, name]) => name)).toEqual(SEEDED_BUGS.map(({ name }) => name));
  for (const [at, { caughtAs }] of SEEDED_BUGS.entries()) expect(rows[at]?.[2]).toContain(`\`${caughtAs}\``);
});

/** The others take too long for every run, and the runs without a bug are those of the other files. */
const TRIED = named(SEEDED_BUGS, [
  'a batch is marked published though half of it failed',
  'the key limit is checked outside of the transaction',
  'a store that is away is answered as a key that is not there',
]);

test.for(TRIED)(
  'the checker finds that $name',
  { timeout: TIMEOUT_MS },
  async ({ replacements, scenario, caughtAs }) => {
    await using broken = await buildProgram(replacements);
    expect(await kindsFound((attempt) => scenario(broken, new Random(SEED + attempt)), caughtAs)).toContain(caughtAs);
  },
);
