import { status } from '@grpc/grpc-js';

import type { CallName } from '../grpc/callers.js';
import type { ObserveCall, ObserveCalls } from '../grpc/unary.js';
import { Latencies } from './latencies.js';

/** Whoever is in no callers file: a name that none there can have. */
export const UNKNOWN_CALLER = '(unknown)';

/** By their numbers, which begin at 0. */
export const CODES: readonly string[] = Object.keys(status).filter((name) => !/^\d/.test(name));

/** The calls as they were answered, by name, caller and code. */
export class CallMeters {
  readonly #meters = new Map<CallName, CallMeter>();

  readonly observe: ObserveCalls = (name) => {
    const meter = new CallMeter();
    this.#meters.set(name, meter);
    return meter.observe;
  };

  get byName(): ReadonlyMap<CallName, Pick<CallMeter, 'durations' | 'counts'>> {
    return this.#meters;
  }
}

class CallMeter {
  readonly durations = new Latencies();
  /** By caller, and at the place of its number each code's. */
  readonly counts = new Map<string, number[]>();

  readonly observe: ObserveCall = (caller = UNKNOWN_CALLER, code, ms) => {
    this.durations.add(ms);
    let counts = this.counts.get(caller);
    if (!counts) this.counts.set(caller, (counts = CODES.map(() => 0)));
    counts[code] = (counts[code] ?? 0) + 1;
  };
}
