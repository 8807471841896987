/**
 * A server that a test has for itself, to stop and to kill. It keeps its port and its data until it is disposed, which
 * ends it and removes them.
 */
export interface OwnServer extends AsyncDisposable {
  /** The process, while there is one: SIGSTOP and SIGCONT to it make the server hang and go on. */
  readonly pid: number | undefined;
  /** Stops it as an operator would: it finishes what it does and closes its files. */
  stop(): Promise<void>;
  /** Ends it as a crash would. */
  kill(): Promise<void>;
  /** Starts it after `stop` or `kill`; resolves once it can be written to. */
  restart(): Promise<void>;
}
