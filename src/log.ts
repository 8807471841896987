/** The only place where loggers are made: what may be written, and how errors are cut down, is decided here. */
import { type DestinationStream, type Logger, pino } from 'pino';

import type { LogLevel } from './config/settings.js';

export type Log = Logger;

/** An error as it is logged: no field of it but these, since drivers attach requests, documents and addresses. */
export interface LoggedError {
  readonly type: string;
  readonly message: string;
  readonly stack?: string;
  readonly cause?: LoggedError;
}

// Nothing is logged under these names. Should it happen by mistake, the value stays out.
const SECRET_FIELDS = [
  'authorization',
  'credential',
  'secret',
  'token',
  'bearer_token',
  'digest',
  'metadata',
  'request',
];
const CAUSES_MAX = 8;

/**
 * JSON, a line each, ISO times; an error goes under `err`.
 * @param destination standard output, unless given
 */
export function createLog(level: LogLevel, destination?: DestinationStream): Log {
  return pino(
    {
      level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      messageKey: 'message',
      serializers: { err: toLoggedError },
      redact: { paths: SECRET_FIELDS.flatMap((name) => [name, `*.${name}`]), censor: '[secret]' },
    },
    destination ?? openOutput(STANDARD_OUTPUT),
  );
}

const STANDARD_OUTPUT = 1;

/**
 * A line that cannot be written, as on a full disk, is lost: for want of a log no call fails, no memory fills and no
 * process ends.
 */
export function openOutput(fd: number): DestinationStream {
  let isTorn = false;
  let output = open();
  function open(): ReturnType<typeof pino.destination> {
    const opened = pino.destination({ fd, sync: true });
    // Without a listener the error is thrown at whoever logs. What could not be written the stream keeps, and all that
    // follows: so another takes its place.
    opened.on('error', () => {
      isTorn = true;
      output = open();
    });
    return opened;
  }
  return {
    write(line) {
      // The line that was lost may be there in part.
      const whole = isTorn ? `\n${line}` : line;
      isTorn = false;
      output.write(whole);
    },
  };
}

/** The error and its causes, each as type, message and stack. */
export function toLoggedError(error: unknown, causesMax = CAUSES_MAX): LoggedError {
  // What is thrown and no error may hold anything, so only its kind is told.
  if (!(error instanceof Error)) return { type: typeof error, message: 'something that is no error was thrown' };
  return {
    type: error.name,
    message: error.message,
    ...(error.stack !== undefined && { stack: error.stack }),
    ...(error.cause !== undefined && causesMax > 0 && { cause: toLoggedError(error.cause, causesMax - 1) }),
  };
}
