import { setTimeout as sleep } from 'node:timers/promises';

import type { Connections, Method } from './connections.js';
import type { Deadline } from './deadline.js';
import { ServiceFault } from './fault.js';
import type { Told } from './refusal.js';
import { waitBeforeRetry } from './retry.js';

/** Calls, each tried until it is answered, refused, or out of time. */
export class Calls {
  readonly #connections: Connections;
  readonly #closing: AbortSignal;

  /** @param closing from when on nothing is tried again */
  constructor(connections: Connections, closing: AbortSignal) {
    this.#connections = connections;
    this.#closing = closing;
  }

  /** @throws ServiceFault */
  read<Request, Response>(
    method: Method<Request, Response>,
    request: Request,
    deadline: Deadline,
  ): Promise<Told<Response>> {
    return this.#repeat(method, request, deadline, () => deadline.tryMs);
  }

  /**
   * A change may have to wait until it is in force everywhere, so each try has all the time that is left.
   * @param request with its request id, which is every try's
   * @param requestId under which a fault says that it can be asked for again
   * @throws ServiceFault
   */
  async change<Request extends { readonly requestId: string }, Response>(
    method: Method<Request, Response>,
    request: Request,
    deadline: Deadline,
    requestId = request.requestId,
  ): Promise<Told<Response>> {
    try {
      return await this.#repeat(method, request, deadline, () => deadline.leftMs);
    } catch (error) {
      throw error instanceof ServiceFault ? error.of(requestId) : error;
    }
  }

  async #repeat<Request, Response>(
    method: Method<Request, Response>,
    request: Request,
    deadline: Deadline,
    tryMs: () => number,
  ): Promise<Told<Response>> {
    for (let tries = 1; ; tries += 1) {
      try {
        return await this.#connections.pick().call(method, request, tryMs());
      } catch (error) {
        if (!(error instanceof ServiceFault)) throw error;
        const waitMs = waitBeforeRetry(error, tries, this.#connections.fit);
        if (waitMs === undefined || waitMs >= deadline.leftMs) throw error;
        await sleep(waitMs, undefined, { signal: this.#closing }).catch(() => {
          throw error;
        });
      }
    }
  }
}
