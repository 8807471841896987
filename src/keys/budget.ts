/**
 * Rate budgets. A lineage's requests are counted in windows, of which each admits the plan's limit. Replicas do not
 * count together: each takes blocks of the window's budget from the store, and admits as many requests as it has taken.
 * What is taken is never given back, so that together they admit no more than there is, whatever becomes of a replica.
 */

/** How long a window lasts from the first request that counts. */
export const RATE_WINDOW_MS = 60_000;

/** What a store keeps of a lineage's window. */
export interface BudgetWindow {
  /** By the store's clock. */
  readonly openedAt: Date;
  /** Requests that replicas may admit or have admitted in it. */
  readonly taken: number;
}

/** What a replica asks for. */
export interface BudgetAsk {
  readonly lineageId: string;
  readonly windowMs: number;
  /** Requests that a window admits, 1 or more. */
  readonly limit: number;
  /** How many to take, 1 or more; fewer are given where fewer are left. */
  readonly want: number;
}

/** What it gets. */
export interface BudgetBlock {
  /** 0: the window is spent. */
  readonly taken: number;
  /** Left for whoever asks next. */
  readonly left: number;
  /** Milliseconds until the window ends, as of a moment between the call and its answer. */
  readonly endsInMs: number;
}

/**
 * Takes from the window that is open at this time, or opens one.
 * @param stored absent: no window was ever opened
 * @param now by the same clock as `openedAt`. Where it was set back, the window lasts its full time from now on
 */
export function takeBudget(
  stored: BudgetWindow | undefined,
  { windowMs, limit, want }: Omit<BudgetAsk, 'lineageId'>,
  now: Date,
): { readonly window: BudgetWindow; readonly block: BudgetBlock } {
  const isOpen = stored !== undefined && now.getTime() < stored.openedAt.getTime() + windowMs;
  const before = isOpen ? stored.taken : 0;
  const openedAt = isOpen && stored.openedAt <= now ? stored.openedAt : now;
  const taken = Math.max(0, Math.min(want, limit - before));
  return {
    window: { openedAt, taken: before + taken },
    block: {
      taken,
      left: Math.max(0, limit - before - taken),
      endsInMs: openedAt.getTime() + windowMs - now.getTime(),
    },
  };
}
