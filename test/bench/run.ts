/**
 * What verifying and revoking take, beside the bare transport and beside what else one could run, all in one run:
 * `npm run bench`. Writes docs/performance.md's tables and its chart; nothing is asserted.
 */
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

import { makeGuardedFolder } from '../support/guard.js';
import type { Scenario } from './bench.js';
import { H2load } from './h2load.js';
import type { Section } from './measured.js';
import { renderReport, writePage } from './page.js';
import { checkPrograms, divideCores } from './programs.js';
import { describeMachine } from './report.js';
import { cold } from './scenarios/cold.js';
import { coldMongodb } from './scenarios/cold-mongodb.js';
import { enforcing } from './scenarios/enforcing.js';
import { envoy } from './scenarios/envoy.js';
import { hot } from './scenarios/hot.js';
import { memory } from './scenarios/memory.js';
import { noise } from './scenarios/noise.js';
import { revoking } from './scenarios/revoking.js';

const scenarios: readonly Scenario[] = [hot, envoy, revoking, noise, cold, coldMongodb, memory, enforcing];

const { values: options } = parseArgs({
  options: {
    only: { type: 'string', multiple: true },
    rounds: { type: 'string', default: '5' },
    seconds: { type: 'string', default: '2' },
    help: { type: 'boolean', default: false },
  },
});

if (options.help) console.log(help());
else await run();

async function run(): Promise<void> {
  const chosen = choose(options.only);
  const rounds = Math.ceil(parsePositive('rounds', options.rounds));
  const seconds = parsePositive('seconds', options.seconds);
  await checkPrograms({ h2load: 'nghttp2-client', 'redis-server': 'redis-server' });
  await using folder = await makeGuardedFolder(join(tmpdir(), 'keyreeve-bench-'));
  const cores = await divideCores();
  await cores.pin(process.pid, 'load');
  const conditions = `${new Date().toISOString().slice(0, 16)} UTC, ${describeMachine()}; ${cores.described}`;
  const begunMs = performance.now();
  const say = (line: string) => {
    const minutes = ((performance.now() - begunMs) / 60_000).toFixed(1);
    console.error(`${minutes.padStart(5)} min  ${line}`);
  };
  const bench = { rounds, seconds, folder: folder.path, cores, h2load: new H2load(folder.path), say };
  const sections: Section[] = [];
  for (const scenario of chosen) sections.push(await scenario.measure(bench));

  const args = [...(options.only ?? []).map((name) => `--only ${name}`), `--rounds ${rounds}`, `--seconds ${seconds}`];
  const report = { command: `npm run bench -- ${args.join(' ')}`, conditions, rounds, sections };
  console.log(await renderReport(report));
  // In part it would be put beside figures of another day.
  if (!options.only) await writePage(report);
}

/** @throws Error that names all scenarios where one is not known */
function choose(names: readonly string[] | undefined): readonly Scenario[] {
  const known = scenarios.map(({ name }) => name);
  const unknown = names?.find((name) => !known.includes(name));
  if (unknown !== undefined) throw new Error(`--only: one of ${known.join(', ')}`);
  return names ? scenarios.filter(({ name }) => names.includes(name)) : scenarios;
}

function help(): string {
  const list = scenarios.map(({ name, what }) => `  ${name.padEnd(16)}${what}`);
  return [
    'npm run bench [-- OPTIONS]',
    '',
    'Measures everything and writes docs/performance.md and docs/performance.svg.',
    '',
    '  --only NAME     this scenario alone, several times for several; prints, and writes nothing',
    '  --rounds N      rounds that count, 5 by default; one more before them warms up',
    '  --seconds N     of load on one server in one round, 2 by default',
    '',
    'Scenarios:',
    ...list,
  ].join('\n');
}

function parsePositive(option: string, value: string): number {
  const number = Number(value);
  if (number > 0 && Number.isFinite(number)) return number;
  throw new Error(`--${option}: a number greater than 0`);
}
