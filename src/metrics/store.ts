import type { StoreObserver, StoreOperation, StoreTrouble } from '../store/metered.js';
import { Latencies, WAIT_BOUNDS } from './latencies.js';

/** What the store's calls took and came to. */
export class StoreMeters implements StoreObserver {
  readonly durations = new Map<StoreOperation, Latencies>();
  readonly troubles = new Map<StoreOperation, Map<StoreTrouble, number>>();
  /** Until what was taken away was so everywhere. */
  readonly enforcements = new Latencies(WAIT_BOUNDS);
  #incomplete = 0;

  /** How many did not wait so long. */
  get incomplete(): number {
    return this.#incomplete;
  }

  ended(operation: StoreOperation, ms: number, trouble?: StoreTrouble): void {
    let durations = this.durations.get(operation);
    if (!durations) this.durations.set(operation, (durations = new Latencies()));
    durations.add(ms);
    if (trouble === undefined) return;
    const troubles = this.troubles.get(operation) ?? new Map<StoreTrouble, number>();
    this.troubles.set(operation, troubles.set(trouble, (troubles.get(trouble) ?? 0) + 1));
  }

  enforced(ms: number, complete: boolean): void {
    if (complete) this.enforcements.add(ms);
    else this.#incomplete += 1;
  }
}
