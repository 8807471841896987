/** Hands items from one that pushes to one that pulls. What is given waits until it is taken. */
export class Handover<T> {
  readonly #given: { readonly item: T; readonly taken: () => void }[] = [];
  #waiting: { readonly take: (item: T) => void; readonly fail: (error: Error) => void } | undefined;
  #failure: Error | undefined;
  #closed = false;

  get closed(): boolean {
    return this.#closed;
  }

  /** Resolves once the item is taken, or nobody takes any more. */
  give(item: T): Promise<void> {
    if (this.#closed) return Promise.resolve();
    if (this.#waiting) {
      this.#waiting.take(item);
      this.#waiting = undefined;
      return Promise.resolve();
    }
    return new Promise((resolve) => this.#given.push({ item, taken: resolve }));
  }

  /** One taker at a time. */
  take(): Promise<T> {
    const next = this.#given.shift();
    if (next) {
      next.taken();
      return Promise.resolve(next.item);
    }
    if (this.#failure) return Promise.reject(this.#failure);
    return new Promise((resolve, reject) => {
      this.#waiting = { take: resolve, fail: reject };
    });
  }

  /** Rejects the taker, once what was given before is taken. */
  fail(error: Error): void {
    this.#failure = error;
    this.#waiting?.fail(error);
    this.#waiting = undefined;
  }

  close(): void {
    this.#closed = true;
    for (const { taken } of this.#given.splice(0)) taken();
  }
}
