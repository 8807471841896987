/** Rate budgets as the stores keep them, in memory, with a network to them that delays and loses what a test says. */
import { type BudgetAsk, type BudgetBlock, type BudgetWindow, takeBudget } from '../../src/keys/budget.js';
import { StoreFault } from '../../src/store/faults.js';
import type { Store } from '../../src/store/port.js';

export interface Network {
  /** Milliseconds until a call reaches the store, and until its answer is back. */
  thereMs: number;
  backMs: number;
  loses: 'nothing' | 'calls' | 'answers';
}

export class BudgetServer {
  readonly network: Network = { thereMs: 0, backMs: 0, loses: 'nothing' };
  /** Of the store's clock. */
  offsetMs = 0;
  /** Calls that were sent. */
  calls = { take: 0, read: 0 };
  /** When each window of the lineage that was asked for first was opened, on the monotonic clock. */
  readonly openings: number[] = [];
  readonly #windows = new Map<string, BudgetWindow>();

  /** What a replica holds of it. */
  connect(isShared: boolean): Pick<Store, 'takeBudget' | 'readBudget' | 'isShared'> {
    return {
      isShared,
      takeBudget: (ask) => {
        this.calls.take += 1;
        return this.#through(() => this.#take(ask));
      },
      readBudget: (ask) => {
        this.calls.read += 1;
        return this.#through(
          () => takeBudget(this.#windows.get(ask.lineageId), { ...ask, want: 0 }, this.#now()).block,
        );
      },
    };
  }

  left(lineageId: string, limit: number, windowMs: number): number {
    return takeBudget(this.#windows.get(lineageId), { windowMs, limit, want: 0 }, this.#now()).block.left;
  }

  #now(): Date {
    return new Date(Date.now() + this.offsetMs);
  }

  #take(ask: BudgetAsk): BudgetBlock {
    const { window, block } = takeBudget(this.#windows.get(ask.lineageId), ask, this.#now());
    if (window.taken === block.taken && block.taken > 0) this.openings.push(performance.now());
    this.#windows.set(ask.lineageId, window);
    return block;
  }

  async #through<T>(work: () => T): Promise<T> {
    const { thereMs, backMs, loses } = this.network;
    await passing(thereMs);
    if (loses === 'calls') throw new StoreFault('unavailable', 'lost on the way there');
    const answer = work();
    await passing(backMs);
    if (loses === 'answers') throw new StoreFault('unavailable', 'lost on the way back');
    return answer;
  }
}

function passing(ms: number): Promise<void> {
  return ms === 0 ? Promise.resolve() : new Promise((resolve) => setTimeout(resolve, ms));
}
