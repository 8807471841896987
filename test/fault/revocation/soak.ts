/**
 * Takes access away for a long time while three replicas and their database are hurt: `npm run soak:revocation --
 * --minutes 60 [--seed N] [--fault TEXT] [--lease MS]`. Or tries the checker with each seeded bug: `--seeded-bugs [--only TEXT]`. Prints
 * how it goes on, and at the end the result as a table and as a line of JSON. Ends with 1 where a promise was broken or a
 * bug not found.
 */
import { mkdtemp, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import process from 'node:process';
import { parseArgs } from 'node:util';

import { describeMachine, toTable } from '../../bench/report.js';
import { startThreeMembers } from '../../support/three-members.js';
import { buildProgram, type Program } from '../program.js';
import { Random } from '../random.js';
import { describeRevocations, latenciesOf, type RevocationFigures, type RevocationViolation } from './checker.js';
import { type AccessFault, faultsOf } from './faults.js';
import { SEEDED_ACCESS_BUGS } from './seeded-bugs.js';
import { startRevocationStack } from './stack.js';
import { type AccessTrialFindings, runAccessTrial } from './trial.js';

/** A round has replicas, servers and a history of its own, so that memory and the checker's time stay small. */
const FAULTS_PER_ROUND = 24;
const PAIRS = 0.3;
/** Most are short, so that a run is dense; with the default, memory has to outlast elections; and some are mixed. */
const LEASES: readonly (readonly number[])[] = [
  [3000, 3000, 3000],
  [3000, 3000, 3000],
  [15_000, 15_000, 15_000],
  [2000, 5000, 3000],
];
const LONG_LEASE_MS = 10_000;
const MINUTE_MS = 60_000;

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '60' },
    seed: { type: 'string' },
    fault: { type: 'string', default: '' },
    lease: { type: 'string' },
    'seeded-bugs': { type: 'boolean', default: false },
    only: { type: 'string', default: '' },
  },
});
const seed = Number(values.seed ?? Math.floor(Math.random() * 2 ** 31));
if (!Number.isSafeInteger(seed)) throw new Error('--seed: expected a whole number');
const beganMs = performance.now();

async function soak(): Promise<boolean> {
  const minutes = Number(values.minutes);
  if (!(minutes > 0)) throw new Error('--minutes: expected a number above 0');
  const endMs = beganMs + minutes * MINUTE_MS;
  const folder = await mkdtemp(join(tmpdir(), 'keyreeve-soak-'));
  say(`seed ${seed}; histories with violations go to ${folder}`);
  const random = new Random(seed);
  const total = new Total();
  await using program = await buildProgram();
  for (let round = 0; performance.now() < endMs; round += 1) {
    const leaseMs =
      values.lease === undefined ? (LEASES[round % LEASES.length] ?? []) : Array<number>(3).fill(Number(values.lease));
    const findings = await tryRound(program, leaseMs, random.fork(), endMs);
    total.add(findings);
    const { calmMs, disturbedMs, ...figures } = findings.figures;
    say(`round ${round}, leases ${leaseMs.join()}: ${JSON.stringify(figures)}`);
    say(`enforced, calm ${JSON.stringify(latenciesOf(calmMs))}, disturbed ${JSON.stringify(latenciesOf(disturbedMs))}`);
    if (findings.violations.length === 0) continue;
    const path = join(folder, `round-${round}.json`);
    await writeFile(path, JSON.stringify({ violations: findings.violations, history: findings.history }));
    say(`${describeRevocations(findings)}\nhistory: ${path}`);
  }
  say(total.table());
  say(total.violations.length > 0 ? describeRevocations(total) : 'no violation');
  say(JSON.stringify(total.result()));
  return total.violations.length === 0;
}

async function tryRound(
  program: Program,
  leaseMs: readonly number[],
  random: Random,
  endMs: number,
): Promise<AccessTrialFindings> {
  await using stack = await startRevocationStack({ program, leaseMs });
  const isLong = Math.min(...leaseMs) >= LONG_LEASE_MS;
  const faults = faultsOf(stack, () => undefined).filter(
    // What goes by leases would take minutes with long ones.
    ({ name, of }) => name.includes(values.fault) && (!isLong || of === 'set'),
  );
  return await runAccessTrial(stack, {
    random,
    schedule: schedule(faults, random.fork(), endMs),
    onFault: (names, enforced) => say(`${enforced} enforced; ${names.join(' and ')}`),
  });
}

/** Each fault as often as another, in an order of chance; now and then with one of a replica beside it. */
function* schedule(faults: readonly AccessFault[], random: Random, endMs: number): Generator<readonly string[]> {
  const ofReplica = faults.filter(({ of }) => of === 'replica');
  let left: AccessFault[] = [];
  for (let made = 0; made < FAULTS_PER_ROUND && performance.now() < endMs; made += 1) {
    if (left.length === 0) left = [...faults];
    const [fault] = left.splice(random.between(0, left.length), 1);
    if (!fault) return;
    const isPair = ofReplica.length > 0 && random.next() < PAIRS;
    yield [fault.name, ...(isPair ? [random.pick(ofReplica).name] : [])];
  }
}

class Total {
  readonly violations: RevocationViolation[] = [];
  readonly #faults = new Map<string, number>();
  readonly #takings = new Map<string, number>();
  readonly #verifications = new Map<string, number>();
  readonly #calmMs: number[] = [];
  readonly #disturbedMs: number[] = [];
  readonly #unknown = new Map<string, number>();
  readonly #sums = { enforced: 0, incomplete: 0, afterEnforced: 0 };
  #reads = 0;

  add({ violations, figures, faults, reads }: AccessTrialFindings): void {
    this.violations.push(...violations);
    addUp(this.#faults, faults);
    addUp(this.#takings, new Map(Object.entries(figures.takings)));
    addUp(this.#verifications, new Map(Object.entries(figures.verifications)));
    addUp(this.#unknown, new Map(Object.entries(figures.unknown)));
    this.#calmMs.push(...figures.calmMs);
    this.#disturbedMs.push(...figures.disturbedMs);
    for (const name of ['enforced', 'incomplete', 'afterEnforced'] as const satisfies (keyof RevocationFigures)[]) {
      this.#sums[name] += figures[name];
    }
    this.#reads += reads;
  }

  result() {
    return {
      date: new Date().toISOString(),
      seed,
      machine: describeMachine(),
      minutes: Math.round((performance.now() - beganMs) / (MINUTE_MS / 10)) / 10,
      faults: Object.fromEntries(this.#faults),
      takings: Object.fromEntries(this.#takings),
      ...this.#sums,
      unknown: Object.fromEntries(this.#unknown),
      verifications: Object.fromEntries(this.#verifications),
      reads: this.#reads,
      calm: latenciesOf(this.#calmMs),
      disturbed: latenciesOf(this.#disturbedMs),
      violations: this.violations.length,
    };
  }

  table(): string {
    const result = this.result();
    const { minutes, faults, takings, unknown, verifications, reads, calm, disturbed, violations } = result;
    const rows: [string, string][] = [
      ['date, seed', `${result.date.slice(0, 10)}, ${result.seed}`],
      ['minutes', `${minutes}`],
      ['faults', `${sumOf(faults)}`],
      ['calls that took access away', `${sumOf(takings)}: ${list(takings)}`],
      ['told to be enforced; not yet', `${this.#sums.enforced}; ${this.#sums.incomplete}`],
      ['outcome unknown', `${sumOf(unknown)}: ${list(unknown)}`],
      ['verifications', `${sumOf(verifications)}: ${list(verifications)}`],
      ['of keys whose end was enforced before', `${this.#sums.afterEnforced}`],
      ['records looked up in the store', `${reads}`],
      ['enforcement, undisturbed', latencyText(calm)],
      ['enforcement, during and after faults', latencyText(disturbed)],
      ['violations', `${violations}`],
    ];
    return toTable(['what', 'figure'], rows);
  }
}

function addUp(sums: Map<string, number>, more: ReadonlyMap<string, number>): void {
  for (const [name, count] of more) sums.set(name, (sums.get(name) ?? 0) + count);
}

function sumOf(counts: Readonly<Record<string, number>>): number {
  return Object.values(counts).reduce((sum, count) => sum + count, 0);
}

function list(counts: Readonly<Record<string, number>>): string {
  return Object.entries(counts)
    .sort(([, a], [, b]) => b - a)
    .map(([name, count]) => `${name} ${count}`)
    .join(', ');
}

function latencyText({ count, p50Ms, p99Ms, maxMs }: ReturnType<typeof latenciesOf>): string {
  return count === 0 ? 'none' : `${count}; p50 ${p50Ms} ms, p99 ${p99Ms} ms, max ${maxMs} ms`;
}

async function trySeededBugs(only: string): Promise<boolean> {
  const bugs = SEEDED_ACCESS_BUGS.filter(({ name }) => name.includes(only));
  const found: Record<string, string[]> = {};
  const wrong: string[] = [];
  await using mongodb = await startThreeMembers();
  for (const { name, replacements, scenario, caughtAs } of bugs) {
    await using broken = await buildProgram(replacements);
    const kinds = [...new Set((await scenario(broken, mongodb)).violations.map(({ kind }) => kind))];
    found[name] = kinds;
    const isFound = kinds.includes(caughtAs);
    if (!isFound) wrong.push(name);
    say(`${isFound ? 'found' : 'MISSED'}: ${name}: ${kinds.join(', ') || 'nothing'}`);
  }
  await using sound = await buildProgram();
  for (const scenario of new Set(bugs.map((bug) => bug.scenario))) {
    const without = await scenario(sound, mongodb);
    const names = bugs.filter((bug) => bug.scenario === scenario).map(({ name }) => name);
    if (without.violations.length > 0) wrong.push(...names);
    say(`without: ${names.join('; ')}: ${describeRevocations(without) || 'nothing'}`);
  }
  say(JSON.stringify({ date: new Date().toISOString(), found, wrong }));
  return wrong.length === 0;
}

function say(line: string): void {
  const seconds = ((performance.now() - beganMs) / 1000).toFixed(1);
  process.stdout.write(/^[{|]/.test(line) ? `${line}\n` : `[${seconds} s] ${line}\n`);
}

// At the end, where the class above is there.
process.exitCode = (await (values['seeded-bugs'] ? trySeededBugs(values.only) : soak())) ? 0 : 1;
