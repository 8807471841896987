import type { RandomBytes } from '../keys/base62.js';
import type { Clock } from '../keys/clock.js';
import type { Peppers } from '../keys/pepper.js';
import type { Store } from '../store/port.js';
import type { Verifier } from '../verify/verifier.js';
import type { Keyspaces } from './callers.js';
import type { ObserveCalls } from './unary.js';

/** What the calls are made of. */
export interface Parts {
  readonly store: Store;
  readonly verify: Verifier;
  readonly keyspaces: Keyspaces;
  readonly clock: Clock;
  readonly random: RandomBytes;
  readonly peppers: Peppers;
  /** Whether too many events wait for the audit sink to let anything be created or widened. */
  readonly backlogExceeded: () => boolean;
  /** Absent: nobody counts the calls. */
  readonly observe?: ObserveCalls;
}
