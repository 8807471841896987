/** Resources that end together, in reverse of the order in which they were added: an AsyncDisposableStack, which Node 20 lacks. */
export class Opened implements AsyncDisposable {
  readonly #resources: (() => unknown)[] = [];

  /** Answers the resource. */
  use<R extends AsyncDisposable>(resource: R): R {
    this.#resources.push(() => resource[Symbol.asyncDispose]());
    return resource;
  }

  /** Answers the resource, which the function ends. */
  adopt<R>(resource: R, end: (resource: R) => unknown): R {
    this.#resources.push(() => end(resource));
    return resource;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const end of this.#resources.splice(0).reverse()) await end();
  }
}
