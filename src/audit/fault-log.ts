import type { Logger } from 'pino';

import type { Clock } from '../keys/clock.js';

const REPEAT_MS = 30_000;

/** Tells of a fault when it begins, from time to time while it lasts, and when it is over: not at each try. */
export class FaultLog {
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #lasting = new Map<string, { toldMs: number; untold: number }>();

  constructor(clock: Clock, log: Logger) {
    this.#clock = clock;
    this.#log = log;
  }

  /** @param message also tells one fault from another */
  tell(level: 'warn' | 'error', message: string, fields: object): void {
    const nowMs = this.#clock.monotonicMs();
    const lasting = this.#lasting.get(message);
    if (lasting && nowMs - lasting.toldMs < REPEAT_MS) {
      lasting.untold += 1;
      return;
    }
    this.#log[level]({ ...fields, ...(lasting && { untold: lasting.untold }) }, message);
    this.#lasting.set(message, { toldMs: nowMs, untold: 0 });
  }

  /** Whether one of them lasted until now. */
  areOver(...messages: readonly string[]): boolean {
    return messages.map((message) => this.#lasting.delete(message)).includes(true);
  }
}
