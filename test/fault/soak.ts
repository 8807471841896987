/**
 * Kills the service and what is behind it for a long time: `npm run soak -- --kills 500 [--seed N] [--stack embedded]`.
 * Or tries the checker with each seeded bug: `npm run soak -- --seeded-bugs [--only TEXT]`. Or measures two replicas under
 * full load: with Kafka away (`--kafka-away MINUTES`) or MongoDB's primary killed (`--primary-kills N`). Prints how it goes
 * on, and at the end the result as text and as a line of JSON. Ends with 1 where a promise was broken or a bug not found.
 */
import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import process from 'node:process';
import { parseArgs } from 'node:util';

import { describeMachine } from '../bench/report.js';
import { describe, type Figures, type Violation } from './checker.js';
import { measureKafkaOutage, measurePrimaryKills } from './outages.js';
import { buildProgram, type Program } from './program.js';
import { Random } from './random.js';
import { SEEDED_BUGS, type SeededBug } from './seeded-bugs.js';
import { CLOCK_SET, type Fault, startEmbeddedStack, startReplicatedStack, type Stack } from './stack.js';
import { runTrial, type TrialFindings } from './trial.js';

/** A round has servers and a history of its own, so that memory and the checker's time stay small. */
const FAULTS_PER_ROUND = 25;

const STACKS: Readonly<Record<string, (program?: Program) => Promise<Stack>>> = {
  embedded: (program) => startEmbeddedStack(program ? { program } : {}),
  replicated: (program) => startReplicatedStack(program ? { program } : {}),
};

const { values } = parseArgs({
  options: {
    kills: { type: 'string', default: '500' },
    seed: { type: 'string' },
    stack: { type: 'string' },
    'seeded-bugs': { type: 'boolean', default: false },
    only: { type: 'string', default: '' },
    'kafka-away': { type: 'string' },
    'primary-kills': { type: 'string' },
  },
});
const seed = Number(values.seed ?? Math.floor(Math.random() * 2 ** 31));
if (!Number.isSafeInteger(seed)) throw new Error('--seed: expected a whole number');
const beganMs = performance.now();

async function soak(): Promise<boolean> {
  const kills = Number(values.kills);
  if (!Number.isSafeInteger(kills) || kills < 1) throw new Error('--kills: expected a whole number, 1 or more');
  const names = values.stack === undefined ? Object.keys(STACKS) : [values.stack];
  const folder = await mkdtemp(join(tmpdir(), 'keyreeve-soak-'));
  say(`seed ${seed}; histories in ${folder}`);
  const random = new Random(seed);
  const total = new Total();
  await using program = await buildProgram();
  for (let round = 0; total.kills < kills; round += 1) {
    const open = STACKS[names[round % names.length] ?? ''];
    if (!open) throw new Error(`--stack: expected one of ${Object.keys(STACKS).join()}`);
    // Every fifth is the service as built, which cannot be told where to die.
    await using stack = await open(round % 5 === 4 ? undefined : program);
    const findings = await runTrial(stack, {
      random: random.fork(),
      // Rate windows are judged where the clock is left alone.
      faults: schedule(
        stack.faults.filter(({ name }) => round % 4 < 2 || name !== CLOCK_SET),
        random.fork(),
      ),
      killsMax: kills - total.kills,
      historyPath: join(folder, `round-${round}.jsonl`),
      onFault: ({ name }, killed) => say(`${total.kills + killed}/${kills} killed; ${name}`),
    });
    total.add(findings);
    say(`round ${round}: ${JSON.stringify(findings.figures)}`);
    if (findings.violations.length > 0) say(describe(findings));
  }
  const result = {
    date: new Date().toISOString(),
    seed,
    machine: describeMachine(),
    minutes: Math.round((performance.now() - beganMs) / 6000) / 10,
    kills: total.kills,
    ...total.figures,
    violations: total.violations.length,
    faults: Object.fromEntries(total.faults),
  };
  say('');
  for (const [name, value] of Object.entries(result)) say(`${name}: ${JSON.stringify(value)}`);
  say(total.violations.length > 0 ? describe(total) : 'no violation');
  say(JSON.stringify(result));
  return total.violations.length === 0;
}

/** Each fault as often as another, in an order of chance. */
function* schedule(faults: readonly Fault[], random: Random): Generator<Fault> {
  let left: Fault[] = [];
  for (let made = 0; made < FAULTS_PER_ROUND; made += 1) {
    if (left.length === 0) left = [...faults];
    const [fault] = left.splice(random.between(0, left.length), 1);
    if (fault) yield fault;
  }
}

class Total {
  kills = 0;
  figures: Figures = { acknowledged: {}, refused: 0, unknown: 0, lost: 0, repeated: 0, outOfOrder: 0, events: 0 };
  readonly violations: Violation[] = [];
  readonly faults = new Map<string, number>();

  add({ violations, figures, faults, kills }: TrialFindings): void {
    const { figures: sum } = this;
    const acknowledged = { ...sum.acknowledged };
    for (const [op, count] of Object.entries(figures.acknowledged)) acknowledged[op] = (acknowledged[op] ?? 0) + count;
    this.figures = {
      acknowledged,
      refused: sum.refused + figures.refused,
      unknown: sum.unknown + figures.unknown,
      lost: sum.lost + figures.lost,
      repeated: sum.repeated + figures.repeated,
      outOfOrder: sum.outOfOrder + figures.outOfOrder,
      events: sum.events + figures.events,
    };
    this.violations.push(...violations);
    this.kills += kills;
    for (const [name, count] of faults) this.faults.set(name, (this.faults.get(name) ?? 0) + count);
  }
}

async function trySeededBugs(only: string): Promise<boolean> {
  say(`seed ${seed}`);
  const results: { bug: string; found: boolean; as: string[]; soundWithout: boolean }[] = [];
  await using sound = await buildProgram();
  for (const bug of SEEDED_BUGS.filter(({ name }) => name.includes(only))) {
    const as = await violationsOf(bug, await buildProgram(bug.replacements));
    const without = await bug.scenario(sound, new Random(seed));
    const found = as.includes(bug.caughtAs);
    results.push({ bug: bug.name, found, as, soundWithout: without.violations.length === 0 });
    say(`${found ? 'found' : 'MISSED'}: ${bug.name}: ${as.join(', ') || 'nothing'}`);
    if (without.violations.length > 0) say(`WITHOUT THE BUG: ${describe(without)}`);
  }
  say(JSON.stringify({ date: new Date().toISOString(), seed, results }));
  return results.every(({ found, soundWithout }) => found && soundWithout);
}

async function violationsOf(bug: SeededBug, program: Program): Promise<string[]> {
  await using broken = program;
  const { violations } = await bug.scenario(broken, new Random(seed));
  return [...new Set(violations.map(({ kind }) => kind))];
}

async function tryKafkaOutage(minutes: number): Promise<boolean> {
  if (!(minutes > 0)) throw new Error('--kafka-away: expected a number of minutes above 0');
  const outage = await measureKafkaOutage(minutes, say);
  sayResult(outage);
  return outage.lost === 0 && outage.otherFaults.length === 0;
}

async function tryPrimaryKills(kills: number): Promise<boolean> {
  if (!Number.isSafeInteger(kills) || kills < 1) throw new Error('--primary-kills: expected a whole number, 1 or more');
  sayResult(await measurePrimaryKills(kills, say));
  return true;
}

function sayResult(figures: object): void {
  const result = { date: new Date().toISOString(), machine: describeMachine(), ...figures };
  for (const [name, value] of Object.entries(result)) say(`${name}: ${JSON.stringify(value)}`);
  say(JSON.stringify(result));
}

function say(line: string): void {
  const seconds = ((performance.now() - beganMs) / 1000).toFixed(1);
  process.stdout.write(`${line.startsWith('{') ? line : `[${seconds} s] ${line}`}\n`);
}

function tryWhatWasAsked(): Promise<boolean> {
  if (values['seeded-bugs']) return trySeededBugs(values.only);
  if (values['kafka-away'] !== undefined) return tryKafkaOutage(Number(values['kafka-away']));
  if (values['primary-kills'] !== undefined) return tryPrimaryKills(Number(values['primary-kills']));
  return soak();
}

// At the end, where the class above is there.
process.exitCode = (await tryWhatWasAsked()) ? 0 : 1;
