import type { Logger } from 'pino';

import type { Clock } from '../keys/clock.js';
import type { Backlog, Outbox } from './outbox.js';

/** A count that goes no further than this is cheap enough for every second. */
const NEAR_DEPTH = 10_000;
const NEAR_REST_MS = 1000;
/** Beyond, the count goes up to the bound that creating and widening depend on, and takes longer. */
const FAR_REST_MS = 5000;

/** Below this depth a change of magnitude is everyday traffic. */
const TOLD_DEPTH = 100;
const TELL_MS = 60_000;
/** The sink has had time for several tries and for another replica's taking over. */
const OLD_MS = 60_000;

/** Watches how much is unpublished, and tells of it. Each replica does, whether it publishes or not. */
export class BacklogWatch {
  readonly #outbox: Pick<Outbox, 'backlog'>;
  readonly #depthMax: number;
  readonly #clock: Clock;
  readonly #log: Logger;
  #current: Backlog = { depth: 0 };
  #toldMagnitude = 0;
  #toldExceeded = false;
  #toldMs = Number.NEGATIVE_INFINITY;

  /** @param depthMax beyond it `exceeded` */
  constructor(outbox: Pick<Outbox, 'backlog'>, depthMax: number, clock: Clock, log: Logger) {
    this.#outbox = outbox;
    this.#depthMax = depthMax;
    this.#clock = clock;
    this.#log = log;
  }

  /** As of the last look. Depths beyond 10,000 are exact up to the bound, and one more stands for any above. */
  get current(): Backlog {
    return this.#current;
  }

  get exceeded(): boolean {
    return this.#current.depth > this.#depthMax;
  }

  /** When to look again. */
  get restMs(): number {
    return this.#current.depth < NEAR_DEPTH ? NEAR_REST_MS : FAR_REST_MS;
  }

  /** @throws what the store throws; then the last figures stand */
  async look(): Promise<void> {
    const whole = this.#depthMax + 1;
    const near = await this.#outbox.backlog(Math.min(NEAR_DEPTH, whole));
    this.#current = near.depth < NEAR_DEPTH || whole <= NEAR_DEPTH ? near : await this.#outbox.backlog(whole);
    this.#tell();
  }

  #tell(): void {
    const { depth, oldestTime } = this.#current;
    const nowMs = this.#clock.monotonicMs();
    const magnitude = depth < TOLD_DEPTH ? 0 : Math.floor(Math.log10(depth));
    const due = depth > 0 && nowMs - this.#toldMs >= TELL_MS;
    if (magnitude === this.#toldMagnitude && this.exceeded === this.#toldExceeded && !due) return;
    const oldestAgeMs = oldestTime ? Math.max(0, this.#clock.now().getTime() - oldestTime.getTime()) : 0;
    const figures = { depth, oldestAgeMs, depthMax: this.#depthMax };
    if (this.exceeded) this.#log.error(figures, 'audit backlog: beyond its bound, creating and widening are refused');
    else if (oldestAgeMs >= OLD_MS) this.#log.warn(figures, 'audit backlog: events wait for long to be published');
    else this.#log.info(figures, 'audit backlog');
    this.#toldMagnitude = magnitude;
    this.#toldExceeded = this.exceeded;
    this.#toldMs = nowMs;
  }
}
