import type { Deadline } from '../../keys/clock.js';
import { StoreFault } from '../faults.js';
import { untilDeadline } from './connection.js';
import { TimedOut } from './trouble.js';

interface Lane {
  /** Settles when the last in the lane is done. */
  tail: Promise<void>;
  waiting: number;
  /** Counts what got through. */
  done: number;
}

/**
 * Lets the changes of one organization go one after the other in this process: those that meet in the database cost
 * each other a retry, those that wait here do not.
 */
export class Lanes {
  readonly #lanes = new Map<string, Lane>();

  /** @throws StoreFault if its turn does not come before the deadline; then the work was not begun */
  async run<T>(name: string, deadline: Deadline, work: () => Promise<T>): Promise<T> {
    const lane = this.#lanes.get(name) ?? { tail: Promise.resolve(), waiting: 0, done: 0 };
    this.#lanes.set(name, lane);
    const before = lane.tail;
    let leave: (() => void) | undefined;
    const left = new Promise<void>((resolve) => {
      leave = resolve;
    });
    lane.tail = before.then(() => left);
    lane.waiting += 1;
    try {
      await this.#turn(lane, before, deadline);
      const answer = await work();
      lane.done += 1;
      return answer;
    } finally {
      leave?.();
      lane.waiting -= 1;
      if (lane.waiting === 0) this.#lanes.delete(name);
    }
  }

  async #turn(lane: Lane, before: Promise<void>, deadline: Deadline): Promise<void> {
    const doneBefore = lane.done;
    try {
      await untilDeadline(deadline, before);
    } catch (error) {
      if (!(error instanceof TimedOut)) throw error;
      // Nobody got through: then it is not the others that are in the way.
      throw lane.done === doneBefore
        ? error
        : new StoreFault('contention', 'other changes of the organization were first until the deadline');
    }
  }
}
