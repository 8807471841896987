import { setMaxListeners } from 'node:events';

import { ServiceFault } from './fault.js';

/** What has been asked for and has no answer yet, so that a client can end without cutting it off. */
export class UnderWay {
  readonly #closing = new AbortController();
  #count = 0;
  #end: Promise<void> | undefined;
  #ended = (): void => undefined;

  constructor() {
    // Everything that waits for its next try listens.
    setMaxListeners(0, this.#closing.signal);
  }

  /** From when on nothing new is begun, nor anything repeated. */
  get closing(): AbortSignal {
    return this.#closing.signal;
  }

  /** @throws ServiceFault where the client is closed */
  async add<T>(begin: () => Promise<T>): Promise<T> {
    if (this.closing.aborted) {
      throw new ServiceFault('CANCELLED', 'the client is closed', { reason: 'CLIENT_CLOSED' });
    }
    this.#count += 1;
    try {
      return await begin();
    } finally {
      this.#count -= 1;
      if (this.#count === 0) this.#ended();
    }
  }

  /** Resolves once nothing is under way. */
  end(): Promise<void> {
    this.#closing.abort();
    this.#end ??= new Promise((resolve) => {
      if (this.#count === 0) resolve();
      else this.#ended = resolve;
    });
    return this.#end;
  }
}
