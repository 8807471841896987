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

/** A call that was let in. */
export interface Call {
  readonly caller: Caller;
  readonly deadline: Deadline;
  /** Names what the call is about in its line of the log: only what was looked up, never what was sent. */
  note(facts: Facts): void;
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
  readonly clock: Clock;
  readonly running: RunningCalls;
  readonly log: Log;
}

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

  return (rpc, respond) => {
    const unfinished = new Unfinished<Response>(name, level, respond, around);
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

/** A call that has no answer yet. */
class Unfinished<Response> {
  readonly facts: CallFacts = {};
  readonly #name: CallName;
  readonly #level: Level;
  readonly #respond: Respond<Response>;
  readonly #around: Pick<Around, 'clock' | 'log'>;
  readonly #begunMs: number;

  constructor(name: CallName, level: Level, respond: Respond<Response>, around: Pick<Around, 'clock' | 'log'>) {
    this.#name = name;
    this.#level = level;
    this.#respond = respond;
    this.#around = around;
    this.#begunMs = around.clock.monotonicMs();
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
    if (log.isLevelEnabled(this.#level)) log[this.#level](this.#line({}), 'call');
    this.#respond(null, response);
  }

  /** Never throws. */
  fail(error: unknown): void {
    try {
      const { code, details, metadata } = this.report(error, 'call');
      this.#respond({ code, details, metadata });
    } catch {
      this.#giveUp();
    }
  }

  report(error: unknown, message: string): ErrorAnswer {
    const answer = toErrorAnswer(error);
    const { reason, isFault } = answer;
    this.#around.log[levelOf(answer, this.#level)](this.#line({ reason, ...(isFault && { err: error }) }), message);
    return answer;
  }

  /** The log or the transport is broken. A client that hears nothing would wait for its deadline. */
  #giveUp(): void {
    try {
      this.#respond({ code: status.INTERNAL, details: 'internal error' });
    } catch {
      // Nobody is there.
    }
  }

  #line(outcome: object): object {
    const { clock } = this.#around;
    return { call: this.#name, ...this.facts, ...outcome, ms: msSince(this.#begunMs, clock) };
  }
}

type CallFacts = Facts & { caller?: string };

/** @throws Refused, ShuttingDown, Unwanted */
function letIn<Request extends object, Response, Carrier>(
  name: CallName,
  rpc: Incoming<Request> & Carrier,
  unfinished: Unfinished<Response>,
  { authenticate, clock, running }: Around<Carrier>,
): Call {
  if (running.ending) throw new ShuttingDown();
  const caller = authenticate(rpc);
  unfinished.facts.caller = caller.name;
  permitRole(caller, name);
  const call = new LetIn(rpc, caller, deadlineOf(rpc, clock), unfinished);
  call.beginChange();
  orRefuse(checkText(rpc.request));
  return call;
}

class LetIn implements Call {
  readonly caller: Caller;
  readonly deadline: Deadline;
  readonly #rpc: { readonly cancelled: boolean };
  readonly #unfinished: Pick<Unfinished<never>, 'facts' | 'report'>;

  constructor(
    rpc: { readonly cancelled: boolean },
    caller: Caller,
    deadline: Deadline,
    unfinished: Pick<Unfinished<never>, 'facts' | 'report'>,
  ) {
    this.#rpc = rpc;
    this.caller = caller;
    this.deadline = deadline;
    this.#unfinished = unfinished;
  }

  note(facts: Facts): void {
    Object.assign(this.#unfinished.facts, facts);
  }

  beginChange(): void {
    if (this.deadline.passed) throw new Unwanted('DEADLINE_EXCEEDED');
    if (this.#rpc.cancelled) throw new Unwanted('CANCELLED');
  }

  report(error: unknown): ErrorAnswer {
    return this.#unfinished.report(error, 'item');
  }
}

/** The client's deadline, less what it takes to answer. */
function deadlineOf(rpc: { getDeadline(): Date | number }, clock: Clock): Deadline {
  // The transport has reckoned it by this clock.
  const leftMs = Number(rpc.getDeadline()) - Date.now();
  const answerMs = Math.min(leftMs * ANSWER_SHARE, ANSWER_MS_MAX);
  return Deadline.after(Math.min(leftMs - answerMs, CALL_MS_MAX), clock);
}

/** A verification's faults stay at its level: while the store is away they come in thousands, and health tells of it. */
function levelOf({ code, isFault }: Pick<ErrorAnswer, 'code' | 'isFault'>, level: 'debug' | 'info') {
  if (code === status.INTERNAL) return 'error';
  return isFault && level === 'info' ? 'warn' : level;
}

function msSince(begunMs: number, clock: Clock): number {
  return Math.round((clock.monotonicMs() - begunMs) * 100) / 100;
}
