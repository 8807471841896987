import { type ServerInterceptor, type ServerInterceptingCallInterface, ServerInterceptingCall } from '@grpc/grpc-js';

import { ShuttingDown, toErrorAnswer } from './errors.js';

/** The calls that have begun and not ended, so that the server can end without cutting any off. */
export class RunningCalls {
  readonly #calls = new Set<Promise<void>>();
  readonly #streams = new Set<ServerInterceptingCallInterface>();
  readonly #waiting = new Set<(reason: ShuttingDown) => void>();
  #ending = false;

  /** Whether calls that come now are too late. */
  get ending(): boolean {
    return this.#ending;
  }

  /** @param call ends when the call has been answered, and never rejects */
  add(call: Promise<void>): void {
    this.#calls.add(call);
    void call.finally(() => this.#calls.delete(call));
  }

  /** Refuses what comes from now on, and ends the streams (health's Watch, reflection), which could go on for ever. */
  end(): void {
    this.#ending = true;
    const { code, details, metadata } = toErrorAnswer(new ShuttingDown());
    for (const stream of this.#streams) stream.sendStatus({ code, details, metadata });
  }

  /** What the work comes to, or a `ShuttingDown` when `cutOff` is called before: the work may go on then. */
  orCutOff<T>(work: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      this.#waiting.add(reject);
      void work.then(resolve, reject).finally(() => this.#waiting.delete(reject));
    });
  }

  /** Has the calls that are still at work answered at once. Says whether there were any. */
  cutOff(): boolean {
    const waiting = [...this.#waiting];
    for (const reject of waiting) reject(new ShuttingDown());
    return waiting.length > 0;
  }

  /** Resolves when every call has been answered, also those that nobody waits for any more. */
  async answered(): Promise<void> {
    while (this.#calls.size > 0) await Promise.all(this.#calls);
  }

  /** Gets to know the streams; a unary call is made known by `add`. */
  readonly interceptor: ServerInterceptor = (method, call) => {
    // As it came, as where there is no interceptor: each layer around it makes closures at every step of the call.
    // eslint-disable-next-line @typescript-eslint/no-unsafe-class-instance-assignment -- the type asks for more than is used
    if (!method.responseStream) return call as ServerInterceptingCall;
    return new ServerInterceptingCall(call, {
      start: (next) => {
        this.#streams.add(call);
        next({
          onReceiveMetadata: (metadata, pass) => pass(metadata),
          onReceiveMessage: (message, pass) => pass(message),
          onReceiveHalfClose: (pass) => pass(),
          onCancel: () => this.#streams.delete(call),
        });
      },
    });
  };
}
