/**
 * Moves records to the pepper in use as they verify, beside the calls: nobody waits for it, and what fails is tried again
 * when the key verifies some seconds later.
 */
import { type Clock, Deadline } from '../keys/clock.js';
import type { Digest } from '../keys/digest.js';
import type { Log } from '../log.js';
import type { Store } from '../store/port.js';
import { endedBy } from './patience.js';

export interface DigestMovesParts {
  readonly store: Pick<Store, 'moveDigest'>;
  readonly clock: Clock;
  readonly log: Log;
}

/** With more verifications than that, the others wait for their next one: moving is never urgent. */
const MOVING_MAX = 4;
const MOVE_MS_MAX = 4000;
const TOLD_EVERY_MS = 30_000;
/** A store that cannot write now is not asked to at each verification. */
const REST_MS = 5000;

export class DigestMoves {
  readonly #store: DigestMovesParts['store'];
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #moving = new Map<string, Promise<void>>();
  #toldMs = Number.NEGATIVE_INFINITY;
  #failedMs = Number.NEGATIVE_INFINITY;
  #over = false;

  constructor({ store, clock, log }: DigestMovesParts) {
    this.#store = store;
    this.#clock = clock;
    this.#log = log;
  }

  /** Begins to move the key, unless that is under way or too many others are. */
  begin(keyId: string, from: Digest, to: Digest): void {
    if (this.#over || this.#moving.has(keyId) || this.#moving.size >= MOVING_MAX) return;
    if (this.#clock.monotonicMs() - this.#failedMs < REST_MS) return;
    const move = this.#move(keyId, from, to).finally(() => this.#moving.delete(keyId));
    this.#moving.set(keyId, move);
  }

  /** Begins no more, and waits for those under way. They are whole or not done, wherever they end. */
  async end(deadline: Deadline): Promise<void> {
    this.#over = true;
    await endedBy(deadline, Promise.all(this.#moving.values()));
  }

  /** Never rejects. */
  async #move(keyId: string, from: Digest, to: Digest): Promise<void> {
    try {
      await this.#store.moveDigest(keyId, from, to, Deadline.after(MOVE_MS_MAX, this.#clock));
    } catch (error) {
      const nowMs = this.#clock.monotonicMs();
      this.#failedMs = nowMs;
      if (nowMs - this.#toldMs < TOLD_EVERY_MS) return;
      this.#toldMs = nowMs;
      this.#log.warn({ key_id: keyId, err: error }, 'a key could not be moved to the pepper in use, it is tried again');
    }
  }
}
