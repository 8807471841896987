/** What a loop rests on: it goes on when the time is over, or at once when somebody rings. */
export class Bell {
  #rung = false;
  #wake: (() => void) | undefined;

  /** Ends the current rest, or else the next one before it begins. */
  ring(): void {
    this.#rung = true;
    this.#wake?.();
  }

  /** Rests once at a time. */
  async rest(ms: number): Promise<void> {
    if (!this.#rung) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, ms);
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
      this.#wake = undefined;
    }
    this.#rung = false;
  }
}
