/** What broke, as against what the rules turned down: thrown, with its cause, and never an answer. */
export class StoreFault extends Error {
  override readonly name = 'StoreFault';

  /**
   * @param kind `unavailable`: the store could not be reached or could not write, and nothing is known to have changed
   *   (after an unknown commit it may have: the same request id finds out). `contention`: other writers were first until
   *   the deadline, nothing changed.
   */
  constructor(
    readonly kind: 'unavailable' | 'contention',
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}
