/**
 * Around every call: who asks and whether its role allows the call, until when the answer is wanted, one line in the
 * log, and errors that a client can act on. Nothing that a handler throws goes further than here.
 */
import { type handleUnaryCall, status } from '@grpc/grpc-js';

import type { Caller } from '../config/callers.js';
import { type Clock, Deadline } from '../keys/clock.js';
import type { Log } from '../log.js';
import { type Authenticate, type CallName, type GrpcCarrier, permitRole } from './callers.js';
import { type ErrorAnswer, orRefuse, ShuttingDown, toErrorAnswer, Unwanted } from './errors.js';
import type { RunningCalls } from './running-calls.js';
import { checkText } from './text.js';
import type { Trace } from './trace.js';

/** A call that was let in. */
export interface Call {
  readonly caller: Caller;
  readonly deadline: Deadline;
  /** Of the trace that the call is part of, as its caller says; undefined: of none. */
  readonly traceparent: string | undefined;
  /**
   * Names what the call is about in its line of the log: only what was looked up, never what was sent.
   * @param facts kept as they are: not to be changed any more
   */
  note(facts: Readonly<Facts>): void;
  /**
   * To be asked before anything is written.
   * @throws Unwanted where nobody waits any more
   */
  beginChange(): void;
  /** Puts into the log why an item of several failed, as it is done for a call, and answers what to tell of it. */
  report(error: unknown): ErrorAnswer;
}

export interface Facts {
  keyspace?: string;
  key_id?: string;
  decision?: string;
}

/**
 * Parses, permits, decides, answers; throws a `Refused`, or whatever broke. What it answers at once, and not as a promise,
 * is answered within the same turn.
 */
export type Unary<Request, Response> = (request: Request, call: Call) => Response | Promise<Response>;

/** @template Carrier what brought the call, and shows who makes it */
export interface Around<Carrier = GrpcCarrier> {
  readonly authenticate: Authenticate<Carrier>;
  /** Asked only where the trace is told of: most verifications are neither logged nor change anything. */
  readonly traceOf: (call: Carrier) => Trace | undefined;
  readonly clock: Clock;
  readonly running: RunningCalls;
  readonly log: Log;
  readonly observe: ObserveCalls;
}

/** Answers, for a call by its name, what is told of each time that it was answered. */
export type ObserveCalls = (name: CallName) => ObserveCall;

/** @param caller undefined where nobody known had called */
export type ObserveCall = (caller: string | undefined, code: status, ms: number) => void;

// For a client that sets no deadline: nothing may hold on to memory and connections for ever.
const CALL_MS_MAX = 30_000;
// Kept back, of what is left, to answer with the real reason before the client gives up.
const ANSWER_SHARE = 0.1;
const ANSWER_MS_MAX = 100;

const VERIFICATIONS: ReadonlySet<CallName> = new Set(['VerifyKey', 'BatchVerifyKeys', 'Check', 'ForwardAuth']);

/** A call as it came, of a request and with a deadline on the wall clock. */
export interface Incoming<Request> {
  readonly request: Request;
  readonly cancelled: boolean;
  getDeadline(): Date | number;
}

export function unary<Request extends object, Response, Carrier>(
  name: CallName,
  handle: Unary<Request, Response>,
  around: Around<Carrier>,
): (rpc: Incoming<Request> & Carrier, respond: Respond<Response>) => void {
  const { running } = around;
  const level: Level = VERIFICATIONS.has(name) ? 'debug' : 'info';
  const telling = { name, level, observe: around.observe(name) };

  return (rpc, respond) => {
    const unfinished = new Unfinished<Response, Carrier>(telling, rpc, respond, around);
    try {
      const answered = handle(rpc.request, letIn(name, rpc, unfinished, around));
      if (answered instanceof Promise) running.add(unfinished.settle(running.orCutOff(answered)));
      else unfinished.succeed(answered);
    } catch (error) {
      unfinished.fail(error);
    }
  };
}

type Respond<Response> = Parameters<handleUnaryCall<unknown, Response>>[1];
type Level = 'debug' | 'info';

interface Telling {
  readonly name: CallName;
  readonly level: Level;
  readonly observe: ObserveCall;
}

/** A call that has no answer yet. */
class Unfinished<Response, Carrier> {
  /** On the monotonic clock. */
  readonly begunMs: number;
  /** Undefined where nobody known had called. */
  caller: string | undefined;
  readonly #telling: Telling;
  readonly #rpc: Carrier;
  readonly #respond: Respond<Response>;
  readonly #around: Pick<Around<Carrier>, 'traceOf' | 'clock' | 'log'>;
  #facts: Readonly<Facts> | undefined;

  constructor(
    telling: Telling,
    rpc: Carrier,
    respond: Respond<Response>,
    around: Pick<Around<Carrier>, 'traceOf' | 'clock' | 'log'>,
  ) {
    this.#telling = telling;
    this.#rpc = rpc;
    this.#respond = respond;
    this.#around = around;
    this.begunMs = around.clock.monotonicMs();
  }

  note(facts: Readonly<Facts>): void {
    this.#facts = this.#facts ? { ...this.#facts, ...facts } : facts;
  }

  /** Never rejects. */
  async settle(answered: Promise<Response>): Promise<void> {
    try {
      this.succeed(await answered);
    } catch (error) {
      this.fail(error);
    }
  }

  /** @throws whatever the log or the transport does */
  succeed(response: Response): void {
    const { log } = this.#around;
    const { level } = this.#telling;
    if (log.isLevelEnabled(level)) log[level](this.#line({}), 'call');
    this.#respond(null, response);
    this.#observe(status.OK);
  }

  /** Never throws. */
  fail(error: unknown): void {
    try {
      const { code, details, metadata } = this.report(error, 'call');
      this.#respond({ code, details, metadata });
      this.#observe(code);
    } catch {
      this.#giveUp();
    }
  }

  get trace(): Trace | undefined {
    return this.#around.traceOf(this.#rpc);
  }

  report(error: unknown, message: string): ErrorAnswer {
    const answer = toErrorAnswer(error);
    const { reason, isFault } = answer;
    this.#around.log[levelOf(answer, this.#telling.level)](
      this.#line({ reason, ...(isFault && { err: error }) }),
      message,
    );
    return answer;
  }

  /** The log or the transport is broken. A client that hears nothing would wait for its deadline. */
  #giveUp(): void {
    this.#observe(status.INTERNAL);
    try {
      this.#respond({ code: status.INTERNAL, details: 'internal error' });
    } catch {
      // Nobody is there.
    }
  }

  /** Never throws. */
  #observe(code: status): void {
    this.#telling.observe(this.caller, code, this.#around.clock.monotonicMs() - this.begunMs);
  }

  #line(outcome: object): object {
    const { caller, trace } = this;
    return {
      call: this.#telling.name,
      ...(caller !== undefined && { caller }),
      ...this.#facts,
      ...outcome,
      ...(trace && { trace_id: trace.traceId, span_id: trace.spanId }),
      ms: Math.round((this.#around.clock.monotonicMs() - this.begunMs) * 100) / 100,
    };
  }
}

/** @throws Refused, ShuttingDown, Unwanted */
function letIn<Request extends object, Response, Carrier>(
  name: CallName,
  rpc: Incoming<Request> & Carrier,
  unfinished: Unfinished<Response, Carrier>,
  { authenticate, clock, running }: Around<Carrier>,
): Call {
  if (running.ending) throw new ShuttingDown();
  const caller = authenticate(rpc);
  unfinished.caller = caller.name;
  permitRole(caller, name);
  const call = new LetIn(rpc, caller, deadlineOf(rpc, clock, unfinished.begunMs), unfinished);
  call.beginChange();
  orRefuse(checkText(rpc.request));
  return call;
}

type Noted = Pick<Unfinished<never, never>, 'note' | 'trace' | 'report'>;

class LetIn implements Call {
  readonly caller: Caller;
  readonly deadline: Deadline;
  readonly #rpc: { readonly cancelled: boolean };
  readonly #unfinished: Noted;

  constructor(rpc: { readonly cancelled: boolean }, caller: Caller, deadline: Deadline, unfinished: Noted) {
    this.#rpc = rpc;
    this.caller = caller;
    this.deadline = deadline;
    this.#unfinished = unfinished;
  }

  get traceparent(): string | undefined {
    return this.#unfinished.trace?.traceparent;
  }

  note(facts: Readonly<Facts>): void {
    this.#unfinished.note(facts);
  }

  beginChange(): void {
    if (this.deadline.passed) throw new Unwanted('DEADLINE_EXCEEDED');
    if (this.#rpc.cancelled) throw new Unwanted('CANCELLED');
  }

  report(error: unknown): ErrorAnswer {
    return this.#unfinished.report(error, 'item');
  }
}

/** The client's deadline, less what it takes to answer. Too early by what letting the call in took, and never too late. */
function deadlineOf(rpc: { getDeadline(): Date | number }, clock: Clock, begunMs: number): Deadline {
  // The transport has reckoned it by this clock.
  const leftMs = Number(rpc.getDeadline()) - Date.now();
  const answerMs = Math.min(leftMs * ANSWER_SHARE, ANSWER_MS_MAX);
  return Deadline.after(Math.min(leftMs - answerMs, CALL_MS_MAX), clock, begunMs);
}

/** A verification's faults stay at its level: while the store is away they come in thousands, and health tells of it. */
function levelOf({ code, isFault }: Pick<ErrorAnswer, 'code' | 'isFault'>, level: 'debug' | 'info') {
  if (code === status.INTERNAL) return 'error';
  return isFault && level === 'info' ? 'warn' : level;
}
