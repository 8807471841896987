import type { Clock } from '../../keys/clock.js';
import type { Terminal } from '../terminal.js';

const TERMINAL_EVERY_MS = 200;
const LINE_EVERY_MS = 5000;
const ERASE_LINE = '\r\u001b[K';

/** How far something long is: at a terminal one line that changes, elsewhere a line every few seconds. */
export class Progress implements Disposable {
  readonly #stderr: Terminal['stderr'];
  readonly #clock: Pick<Clock, 'monotonicMs'>;
  #shownMs: number;
  #onScreen = false;

  constructor(stderr: Terminal['stderr'], clock: Pick<Clock, 'monotonicMs'>) {
    this.#stderr = stderr;
    this.#clock = clock;
    this.#shownMs = clock.monotonicMs();
  }

  show({ events, share }: { readonly events: number; readonly share?: number }): void {
    this.say(`${events.toLocaleString('en-US')} events read`, share);
  }

  /** @param share of the whole, 0 to 1, where that is known */
  say(done: string, share?: number): void {
    const nowMs = this.#clock.monotonicMs();
    if (nowMs - this.#shownMs < (this.#stderr.isTTY ? TERMINAL_EVERY_MS : LINE_EVERY_MS)) return;
    this.#shownMs = nowMs;
    const percent = share === undefined ? '' : `, ${Math.floor(share * 100)} %`;
    const text = `${done}${percent}`;
    this.#stderr.write(this.#stderr.isTTY ? `${ERASE_LINE}${text}` : `${text}\n`);
    this.#onScreen = this.#stderr.isTTY === true;
  }

  /** Makes room for a line of somebody else's. */
  clear(): void {
    if (this.#onScreen) this.#stderr.write(ERASE_LINE);
    this.#onScreen = false;
  }

  [Symbol.dispose](): void {
    this.clear();
  }
}
