/**
 * Around every call: who asks and whether its role allows the call, until when the answer is wanted, one line in the
 * log, and errors that a client can act on. Nothing that a handler throws goes further than here.
 */
import { type handleUnaryCall, type ServerUnaryCall, status } from '@grpc/grpc-js';

import type { Caller } from '../config/callers.js';
import { type Clock, Deadline } from '../keys/clock.js';
import type { Log } from '../log.js';
import { type Authenticate, type CallName, permitRole } from './callers.js';
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
  /** Puts into the log why an item of several failed, as it is done for a call. */
  report(error: unknown): void;
}

export interface Facts {
  keyspace?: string;
  key_id?: string;
  decision?: string;
}

/** Parses, permits, decides, answers; throws a `Refused`, or whatever broke. */
export type Unary<Request, Response> = (request: Request, call: Call) => Promise<Response>;

export interface Around {
  readonly authenticate: Authenticate;
  readonly clock: Clock;
  readonly running: RunningCalls;
  readonly log: Log;
}

// For a client that sets no deadline: nothing may hold on to memory and connections for ever.
const CALL_MS_MAX = 30_000;
// Kept back, of what is left, to answer with the real reason before the client gives up.
const ANSWER_SHARE = 0.1;
const ANSWER_MS_MAX = 100;

export function unary<Request extends object, Response>(
  name: CallName,
  handle: Unary<Request, Response>,
  around: Around,
): handleUnaryCall<Request, Response> {
  const { clock, running, log } = around;
  const level = name === 'VerifyKey' || name === 'BatchVerifyKeys' ? 'debug' : 'info';

  async function answer(
    rpc: ServerUnaryCall<Request, Response>,
    respond: Parameters<handleUnaryCall<Request, Response>>[1],
  ): Promise<void> {
    const begunMs = clock.monotonicMs();
    const facts: CallFacts = {};
    const line = (outcome: object) => ({ call: name, ...facts, ...outcome, ms: msSince(begunMs, clock) });
    const report = (error: unknown) => {
      const { code, reason, isFault } = toErrorAnswer(error);
      log[levelOf({ code, isFault }, level)](line({ reason, ...(isFault && { err: error }) }), 'item');
    };
    try {
      const call = { ...letIn(name, rpc, facts, around), report };
      const response = await running.orCutOff(handle(rpc.request, call));
      log[level](line({}), 'call');
      respond(null, response);
    } catch (error) {
      const { code, details, metadata, reason, isFault } = toErrorAnswer(error);
      log[levelOf({ code, isFault }, level)](line({ reason, ...(isFault && { err: error }) }), 'call');
      respond({ code, details, metadata });
    }
  }

  return (rpc, respond) => {
    const answered = answer(rpc, respond)
      // The log or the transport is broken. A client that hears nothing would wait for its deadline.
      .catch(() => respond({ code: status.INTERNAL, details: 'internal error' }))
      .catch(() => undefined);
    running.add(answered);
  };
}

type CallFacts = Facts & { caller?: string };

/** @throws Refused, ShuttingDown, Unwanted */
function letIn<Request extends object, Response>(
  name: CallName,
  rpc: ServerUnaryCall<Request, Response>,
  facts: CallFacts,
  { authenticate, clock, running }: Around,
): Omit<Call, 'report'> {
  if (running.ending) throw new ShuttingDown();
  const caller = authenticate(rpc.metadata);
  facts.caller = caller.name;
  permitRole(caller, name);
  const deadline = deadlineOf(rpc, clock);
  const beginChange = () => {
    if (deadline.passed) throw new Unwanted('DEADLINE_EXCEEDED');
    if (rpc.cancelled) throw new Unwanted('CANCELLED');
  };
  beginChange();
  orRefuse(checkText(rpc.request));
  return { caller, deadline, note: (more) => Object.assign(facts, more), beginChange };
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
