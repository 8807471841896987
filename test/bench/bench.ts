/** What all scenarios share. */
import type { Cores } from './programs.js';
import type { H2load } from './h2load.js';
import type { Section } from './measured.js';

export interface Bench {
  /** That count, after one that does not. */
  readonly rounds: number;
  /** Of load on one server in one round. */
  readonly seconds: number;
  /** For files that go with the bench. */
  readonly folder: string;
  readonly cores: Cores;
  readonly h2load: H2load;
  /** A line of progress. */
  say(line: string): void;
}

export interface Scenario {
  /** As `--only` names it. */
  readonly name: string;
  readonly what: string;
  measure(bench: Bench): Promise<Section>;
}

/** One of those that are measured in turn. Told whether the round counts, and is only a warm-up otherwise. */
export type Arm = (counts: boolean) => Promise<void>;

/** Every other round in reverse. */
export async function inRounds(bench: Bench, scenario: string, arms: readonly Arm[]): Promise<void> {
  for (let round = 0; round <= bench.rounds; round += 1) {
    bench.say(`${scenario}: ${round === 0 ? 'warming up' : `round ${round} of ${bench.rounds}`}`);
    for (const arm of round % 2 === 0 ? arms : arms.toReversed()) await arm(round > 0);
  }
}
