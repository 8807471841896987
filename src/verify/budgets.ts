/**
 * Rate budgets as this replica admits from them: see `keys/budget.ts` for what the replicas share.
 *
 * It takes a tenth of a window's budget at a time, and admits from that without asking anyone. What it takes it never
 * gives back: the units that a replica still holds when the window ends are lost, which is why it holds one block at most.
 *
 * A window's end is reckoned twice. For admitting, from before the store was asked: never later than the store's own end,
 * so no unit is used beside those of the next window. For what clients are told, from after the answer: never earlier, so
 * whoever comes back then finds the next window open.
 */
import { type BudgetBlock, RATE_WINDOW_MS } from '../keys/budget.js';
import { type Clock, Deadline } from '../keys/clock.js';
import { StoreFault } from '../store/faults.js';
import type { Store } from '../store/port.js';
import { until } from './patience.js';

/** Where a lineage stands against its limit. */
export interface RateStanding {
  /** Requests that a window admits. */
  readonly limit: number;
  /** How many of them the present window still admits at the least. */
  readonly remaining: number;
  readonly windowMs: number;
  /** When the present window has ended; absent: none is open, as far as is known. */
  readonly resetTime?: Date;
}

/** What became of a request that counts. */
export type Admission =
  | { readonly admitted: true; readonly standing: RateStanding }
  /** `retryAfterMs`: whole milliseconds, 1 or more, after which the window has ended. */
  | { readonly admitted: false; readonly standing: RateStanding; readonly retryAfterMs: number };

/** Since they were opened. */
export interface BudgetCounts {
  /** Blocks that the store gave. */
  blocks: number;
  admitted: number;
  refused: number;
}

export interface BudgetsOptions {
  readonly store: Pick<Store, 'takeBudget' | 'readBudget' | 'isShared'>;
  readonly clock: Clock;
  /** For tests. */
  readonly windowMs?: number;
}

/** However many wait for the store, and however long they would: then it is asked anew. */
const ASK_MS_MAX = 3000;
/** How long an answer that is certain is held up to tell what remains. */
const TELL_MS_MAX = 200;
const BLOCKS_PER_WINDOW = 10;
/** Reserving a block ahead must not cost much of the budget where it is not used: with the smallest limits it would. */
const RESERVED_SHARE_MAX = 0.15;
/** How far apart two clocks may drift. NTP slews by half of it. */
const DRIFT = 0.001;
/** Stores reckon in whole milliseconds. */
const ROUNDING_MS = 1;

export class Budgets {
  readonly #store: BudgetsOptions['store'];
  readonly #clock: Clock;
  readonly #windowMs: number;
  /** By lineage, in the order in which they last got a window. */
  readonly #held = new Map<string, Window>();
  readonly #takes = new Map<string, Promise<Window>>();
  readonly #counts: BudgetCounts = { blocks: 0, admitted: 0, refused: 0 };

  constructor({ store, clock, windowMs = RATE_WINDOW_MS }: BudgetsOptions) {
    this.#store = store;
    this.#clock = clock;
    this.#windowMs = windowMs;
  }

  get counts(): Readonly<BudgetCounts> {
    return this.#counts;
  }

  /** Lineages of which something is kept. */
  get size(): number {
    return this.#held.size;
  }

  /**
   * Counts a request, if the window has room for it.
   * @throws StoreFault where that is not known here and the store cannot say
   */
  async admit(lineageId: string, limit: number, deadline: Deadline): Promise<Admission> {
    for (;;) {
      const admission = this.admitNow(lineageId, limit);
      if (admission) return admission;
      const window = this.#open(lineageId, limit);
      if (window?.admit(limit)) {
        this.#counts.admitted += 1;
        return { admitted: true, standing: await this.#standingAfter(window, lineageId, limit, deadline) };
      }
      // Those who wait beside this one may be quicker to use it up. Then it is asked again, until the window is spent.
      const taken = await until(deadline, this.#take(lineageId, limit));
      // The store says so now, whatever the cautious reckoning makes of the window's end: it is not asked again at once.
      if (taken.tells(limit) && taken.isSpent(limit)) return this.#refuse(taken, limit);
    }
  }

  /** As `admit`, where that is known here; undefined, and nothing counted, where the store has to be asked. */
  admitNow(lineageId: string, limit: number): Admission | undefined {
    const window = this.#open(lineageId, limit);
    if (!window) return undefined;
    if (window.inHand(limit) === 0) return window.isSpent(limit) ? this.#refuse(window, limit) : undefined;
    if (window.inHand(limit) === 1 && window.left(limit) > 0 && this.#reserves(limit)) return undefined;
    window.admit(limit);
    this.#counts.admitted += 1;
    return { admitted: true, standing: this.#standing(window, limit) };
  }

  /** As `look`, where that is known here. */
  lookNow(lineageId: string, limit: number): RateStanding | undefined {
    const window = this.#open(lineageId, limit);
    const isKnown = window && (window.inHand(limit) > 0 || !this.#store.isShared || window.isSpent(limit));
    return isKnown ? this.#standing(window, limit) : undefined;
  }

  /** Where the lineage stands, for an answer that does not count. What cannot be found out counts as nothing left. */
  async look(lineageId: string, limit: number, deadline: Deadline): Promise<RateStanding> {
    const known = this.lookNow(lineageId, limit);
    if (known) return known;
    const windowMs = this.#windowMs;
    // Not shared with others who ask: what was read before this call began may be more than is left.
    const patience = this.#patience(deadline);
    const read = await unlessAway(until(patience, this.#store.readBudget({ lineageId, windowMs, limit }, patience)));
    if (!read) return { limit, remaining: 0, windowMs };
    // One that is open has been taken from.
    const isOpen = read.left < limit;
    const resetTime = new Date(this.#clock.now().getTime() + Math.ceil(read.endsInMs));
    return { limit, remaining: read.left, windowMs, ...(isOpen && { resetTime }) };
  }

  #refuse(window: Window, limit: number): Admission {
    this.#counts.refused += 1;
    const retryAfterMs = Math.max(1, Math.ceil(window.toldEndMs - this.#clock.monotonicMs()));
    return { admitted: false, standing: this.#standing(window, limit), retryAfterMs };
  }

  #standing(window: Window, limit: number): RateStanding {
    // Where others take as well, only what is in hand is sure to be there at the next request.
    const remaining = window.inHand(limit) + (this.#store.isShared ? 0 : window.left(limit));
    return { limit, remaining, windowMs: this.#windowMs, resetTime: window.resetTime };
  }

  #open(lineageId: string, limit: number): Window | undefined {
    const window = this.#held.get(lineageId);
    return window?.tells(limit) && !window.hasEnded(this.#clock) ? window : undefined;
  }

  /**
   * Where the lineage stands after a request was admitted. The one that uses up a block has the next one reserved, so that
   * 0 remaining is told only where the window is spent, or its limit too small to reserve a part of it.
   */
  async #standingAfter(window: Window, lineageId: string, limit: number, deadline: Deadline): Promise<RateStanding> {
    const patience = this.#patience(deadline);
    while (this.#reservesNext(window, limit)) {
      // The request is admitted, whatever becomes of the next ones.
      const next = await unlessAway(until(patience, this.#take(lineageId, limit)));
      if (!next || next.hasEnded(this.#clock)) break;
      window = next;
    }
    return this.#standing(window, limit);
  }

  #patience(deadline: Deadline): Deadline {
    return Deadline.after(Math.min(TELL_MS_MAX, deadline.remainingMs()), this.#clock);
  }

  #reservesNext(window: Window, limit: number): boolean {
    return this.#reserves(limit) && window.inHand(limit) === 0 && !window.isSpent(limit);
  }

  #reserves(limit: number): boolean {
    return this.#store.isShared && blockOf(limit) <= limit * RESERVED_SHARE_MAX;
  }

  /** Takes a block, once at a time for all who wait for it. */
  #take(lineageId: string, limit: number): Promise<Window> {
    const running = this.#takes.get(lineageId);
    if (running) return running;
    const take = this.#takeBlock(lineageId, limit).finally(() => this.#takes.delete(lineageId));
    // Those who waited may all have given up.
    take.catch(() => undefined);
    this.#takes.set(lineageId, take);
    return take;
  }

  async #takeBlock(lineageId: string, limit: number): Promise<Window> {
    const sentMs = this.#clock.monotonicMs();
    const sentTime = this.#clock.now();
    const ask = { lineageId, windowMs: this.#windowMs, limit, want: blockOf(limit) };
    const block = await this.#store.takeBudget(ask, Deadline.after(ASK_MS_MAX, this.#clock));
    this.#counts.blocks += 1;
    const drift = this.#store.isShared ? this.#windowMs * DRIFT + ROUNDING_MS : 0;
    const window = new Window(limit, block, { sentMs, sentTime, lastsMs: block.endsInMs - drift }, this.#clock);
    this.#forgetEnded();
    this.#held.delete(lineageId);
    this.#held.set(lineageId, window);
    return window;
  }

  /** From the front, where the oldest are, to the first that is still open: in the long run one for each that is added. */
  #forgetEnded(): void {
    for (const [lineageId, window] of this.#held) {
      if (!window.hasEnded(this.#clock)) return;
      this.#held.delete(lineageId);
    }
  }
}

/** What is known here of a lineage's window, as of one answer of the store. */
class Window {
  readonly resetTime: Date;
  /** On the monotonic clock. */
  readonly toldEndMs: number;
  readonly #endMs: number;
  readonly #endTimeMs: number;
  /** The window's units are numbered from 1: those up to `#taken` are taken, by this replica those after `#used`. */
  readonly #taken: number;
  readonly #limit: number;
  #used: number;

  constructor(
    limit: number,
    { taken, left, endsInMs }: BudgetBlock,
    { sentMs, sentTime, lastsMs }: { sentMs: number; sentTime: Date; lastsMs: number },
    clock: Clock,
  ) {
    this.#limit = limit;
    this.#taken = limit - left;
    this.#used = this.#taken - taken;
    this.#endMs = sentMs + lastsMs;
    this.#endTimeMs = sentTime.getTime() + lastsMs;
    this.toldEndMs = clock.monotonicMs() + endsInMs;
    this.resetTime = new Date(clock.now().getTime() + Math.ceil(endsInMs));
  }

  /** Whether it may have ended. The monotonic clock stands still while the machine sleeps: then the other one tells. */
  hasEnded(clock: Clock): boolean {
    return clock.monotonicMs() >= this.#endMs || clock.now().getTime() >= this.#endTimeMs;
  }

  /** Whether it says how much of this limit is left: units above a smaller limit were not asked for. */
  tells(limit: number): boolean {
    return limit <= this.#limit || this.#taken < this.#limit;
  }

  /** Uses one unit, if there is one below the limit, which may have changed since. */
  admit(limit: number): boolean {
    if (this.inHand(limit) === 0) return false;
    this.#used += 1;
    return true;
  }

  inHand(limit: number): number {
    return Math.max(0, Math.min(this.#taken, limit) - this.#used);
  }

  /** Not taken by anyone when the store answered. */
  left(limit: number): number {
    return Math.max(0, limit - this.#taken);
  }

  isSpent(limit: number): boolean {
    return this.left(limit) === 0 && this.inHand(limit) === 0;
  }
}

/** Undefined where the store cannot tell. */
async function unlessAway<T>(asked: Promise<T>): Promise<T | undefined> {
  try {
    return await asked;
  } catch (error) {
    if (error instanceof StoreFault) return undefined;
    throw error;
  }
}

function blockOf(limit: number): number {
  return Math.max(1, Math.floor(limit / BLOCKS_PER_WINDOW));
}
