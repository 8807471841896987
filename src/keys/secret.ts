import { inspect } from 'node:util';

const HIDDEN = '[secret]';

/** Text that must not leave by accident: every implicit way to text answers `[secret]`; `reveal()` is the one word to search for. */
export class Secret {
  readonly #text: string;

  constructor(text: string) {
    this.#text = text;
  }

  reveal(): string {
    return this.#text;
  }

  toString(): string {
    return HIDDEN;
  }

  toJSON(): string {
    return HIDDEN;
  }

  [inspect.custom](): string {
    return HIDDEN;
  }
}
