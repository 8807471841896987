import { type ExitCode, exitCodes } from './exit-codes.js';

/** Ends the command with a line for people and a code for programs. The message holds no secret. */
export class CommandFault extends Error {
  override readonly name: string = 'CommandFault';

  constructor(
    readonly exitCode: ExitCode,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}

/** The command line, or what it points to, is at fault. Says what is expected, and never repeats what was given. */
export class UsageFault extends CommandFault {
  override readonly name = 'UsageFault';

  constructor(message: string, options?: ErrorOptions) {
    super(exitCodes.usage, message, options);
  }
}

/** Standard output took no more: `closed` when its reader has gone, as with `| head`. */
export class OutputFault extends CommandFault {
  override readonly name = 'OutputFault';

  constructor(cause: NodeJS.ErrnoException) {
    const closed = cause.code === 'EPIPE';
    const message = `the output could not be written: ${cause.code ?? 'unknown error'}`;
    super(closed ? exitCodes.outputClosed : exitCodes.internal, message, { cause });
  }
}

/** The system's name of what went wrong (`ENOENT`), which tells enough and repeats no path. */
export function systemCodeOf(error: unknown): string {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : 'unknown error';
}
