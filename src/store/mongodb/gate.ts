import type { Deadline } from '../../keys/clock.js';
import { type Ask, untilDeadline } from './connection.js';

/**
 * Lets so much work with the database be under way at once. A place is free again when the driver's calls themselves have
 * ended, not when whoever waited for them has given up: the server may be at work on them still.
 */
export class Gate {
  readonly #max: number;
  readonly #queue = new Set<Waiting>();
  #inside = 0;

  constructor(max: number) {
    this.#max = max;
  }

  /**
   * Does the work once there is a place.
   * @param work is to let each of its calls be held
   * @throws TimedOut where there is no place before the deadline
   */
  async run<T>(deadline: Deadline, work: (held: (ask: Ask) => Ask) => Promise<T>): Promise<T> {
    await this.#enter(deadline);
    const calls: Promise<unknown>[] = [];
    const held =
      (ask: Ask): Ask =>
      (call) =>
        ask((bounds) => {
          const running = call(bounds);
          calls.push(running);
          return running;
        });
    try {
      return await work(held);
    } finally {
      void Promise.allSettled(calls).then(() => this.#leave());
    }
  }

  async #enter(deadline: Deadline): Promise<void> {
    if (this.#inside < this.#max) {
      this.#inside += 1;
      return;
    }
    const waiting: Waiting = { isIn: false, enter: () => undefined };
    const entered = new Promise<void>((resolve) => (waiting.enter = resolve));
    this.#queue.add(waiting);
    try {
      await untilDeadline(deadline, entered);
    } catch (error) {
      this.#queue.delete(waiting);
      // It was let in at the moment when it gave up.
      if (waiting.isIn) this.#leave();
      throw error;
    }
  }

  /** The place goes to whoever waits longest. */
  #leave(): void {
    const [next] = this.#queue;
    if (!next) {
      this.#inside -= 1;
      return;
    }
    this.#queue.delete(next);
    next.isIn = true;
    next.enter();
  }
}

interface Waiting {
  isIn: boolean;
  enter: () => void;
}
