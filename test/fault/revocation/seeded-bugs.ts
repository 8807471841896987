/**
 * Bugs to try the checker with: each breaks one part of the protocol in the source, and a scenario in which that shows.
 * What is replaced must be there exactly once, so a bug whose place has changed is noticed.
 */
import type { Replacement } from '../program.js';
import type { RevocationViolationKind } from './checker.js';
import type { Scenario } from './scenarios.js';

export interface SeededAccessBug {
  readonly name: string;
  readonly replacements: readonly Replacement[];
  readonly scenario: Scenario;
  /** What the checker must call it. */
  readonly caughtAs: RevocationViolationKind;
}

export const SEEDED_ACCESS_BUGS: readonly SeededAccessBug[] = [];
