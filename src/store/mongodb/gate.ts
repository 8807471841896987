import type { Deadline } from '../../keys/clock.js';
import { type Ask, untilDeadline } from './connection.js';

/**
 * Lets so many calls of the driver be under way at once. A place is free again when the call itself has ended, not when
 * whoever waited for it has given up: the server may be at work on it still.
 */
export class Gate {
  readonly #max: number;
  readonly #queue = new Set<Waiting>();
  #inside = 0;

  constructor(max: number) {
    this.#max = max;
  }

  /** Asks as `ask` does, once there is a place. @throws TimedOut where there is none before the deadline */
  through(ask: Ask, deadline: Deadline): Ask {
    return async (call) => {
      await this.#enter(deadline);
      const leave = () => this.#leave();
      let running: Promise<unknown> | undefined;
      try {
        return await ask((bounds) => {
          const called = call(bounds);
          running = called;
          return called;
        });
      } finally {
        (running ?? Promise.resolve()).then(leave, leave);
      }
    };
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
