import { type Decision, DECISIONS } from '../keys/judge-key.js';

/** How often each was answered, by keyspace. */
export type DecisionCounts = ReadonlyMap<string, Readonly<Record<Decision, number>>>;

/** Counts decisions. Cheap: it runs on every verification. */
export class DecisionTally {
  readonly #counts = new Map<string, Record<Decision, number>>();

  get counts(): DecisionCounts {
    return this.#counts;
  }

  add(keyspace: string, decision: Decision): void {
    let counts = this.#counts.get(keyspace);
    if (!counts) this.#counts.set(keyspace, (counts = noDecisions()));
    counts[decision] += 1;
  }
}

function noDecisions(): Record<Decision, number> {
  return Object.fromEntries(DECISIONS.map((decision) => [decision, 0])) as Record<Decision, number>;
}
