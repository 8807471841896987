import { Metadata, type ServerUnaryCall, status } from '@grpc/grpc-js';
import { describe, expect, test } from 'vitest';

import { LOCAL_CALLER } from '../../src/config/callers.js';
import type { Authenticate, CallName, GrpcCarrier } from '../../src/grpc/callers.js';
import { Refused } from '../../src/grpc/errors.js';
import { RunningCalls } from '../../src/grpc/running-calls.js';
import { readTrace } from '../../src/grpc/trace.js';
import { type Around, type ObserveCalls, type Unary, unary } from '../../src/grpc/unary.js';
import { systemClock } from '../../src/keys/clock.js';
import { createLog, type Log } from '../../src/log.js';
import { StoreFault } from '../../src/store/faults.js';
import { TRACEPARENT } from '../support/audit.js';

interface Line {
  level: string;
  message: string;
  ms: number;
}

interface Answer {
  code: status;
  details?: string;
  response?: unknown;
}

const traceOf: Around['traceOf'] = ({ metadata }) => readTrace(metadata.get('traceparent'));

/** Makes one call of a handler; answers what the client is told and what is logged. */
async function make(
  handle: Unary<object, unknown>,
  given: {
    name?: CallName;
    cancelled?: boolean;
    deadline?: number;
    request?: object;
    metadata?: Metadata;
    authenticate?: Authenticate<GrpcCarrier>;
    log?: Log;
  } = {},
): Promise<{ answer: Answer; lines: Line[]; observed: [caller: string | undefined, code: status][] }> {
  const lines: Line[] = [];
  const observed: [string | undefined, status][] = [];
  const log = given.log ?? createLog('trace', { write: (line) => lines.push(JSON.parse(line) as Line) });
  const running = new RunningCalls();
  const observe: ObserveCalls = () => (caller, code, ms) => {
    expect(ms).toBeGreaterThanOrEqual(0);
    observed.push([caller, code]);
  };
  const authenticate = given.authenticate ?? (() => LOCAL_CALLER);
  const around = { authenticate, traceOf, clock: systemClock, running, log, observe };
  const rpc = {
    request: given.request ?? {},
    metadata: given.metadata ?? new Metadata(),
    cancelled: given.cancelled ?? false,
    getDeadline: () => given.deadline ?? Infinity,
  } as unknown as ServerUnaryCall<object, unknown>;
  const answer = await new Promise<Answer>((resolve) => {
    unary(
      given.name ?? 'CreateKey',
      handle,
      around,
    )(rpc, (error, response) => {
      if (error) resolve({ code: error.code ?? status.UNKNOWN, details: error.details ?? '' });
      else resolve({ code: status.OK, response });
    });
  });
  await running.answered();
  return { answer, lines, observed };
}

const never: Unary<object, unknown> = () => Promise.reject(new Error('the handler was called'));

describe('a call', () => {
  test('that succeeds is answered and logged in one line, without its request or response', async () => {
    const { answer, lines } = await make(
      (_, call) => {
        call.note({ keyspace: 'shop', key_id: 'key_1' });
        return Promise.resolve({ credential: 'CANARY' });
      },
      { request: { name: 'CANARY' } },
    );
    expect(answer).toEqual({ code: status.OK, response: { credential: 'CANARY' } });
    expect(lines).toEqual([
      {
        level: 'info',
        time: expect.any(String) as string,
        call: 'CreateKey',
        caller: 'local',
        keyspace: 'shop',
        key_id: 'key_1',
        ms: expect.any(Number) as number,
        message: 'call',
      },
    ]);
  });

  test('of a trace says in its line, and to its handler, of which', async () => {
    const metadata = new Metadata();
    metadata.set('traceparent', TRACEPARENT);
    const { answer, lines } = await make((_, call) => Promise.resolve(call.traceparent), { metadata });
    expect(answer.response).toBe(TRACEPARENT);
    expect(lines).toMatchObject([{ trace_id: '4bf92f3577b34da6a3ce929d0e0e4736', span_id: '00f067aa0ba902b7' }]);
  });

  test('with a traceparent that is none is answered as one without, and nothing of it is logged', async () => {
    const metadata = new Metadata();
    metadata.set('traceparent', TRACEPARENT.replace(/.$/, 'CANARY'));
    const { answer, lines } = await make((_, call) => Promise.resolve(call.traceparent), { metadata });
    expect(answer).toEqual({ code: status.OK, response: undefined });
    expect(lines[0]).not.toHaveProperty('trace_id');
    expect(JSON.stringify(lines)).not.toContain('CANARY');
  });

  test('is observed once, with who made it, its code and its time, however it ends', async () => {
    const fine: Unary<object, unknown> = () => Promise.resolve({});
    const broken = createLog('info', {
      write() {
        throw new Error('no space left');
      },
    });
    expect((await make(fine)).observed).toEqual([['local', status.OK]]);
    expect((await make(() => ({}))).observed).toEqual([['local', status.OK]]);
    expect((await make(() => Promise.reject(new Refused({ refused: 'KEY_NOT_FOUND' })))).observed).toEqual([
      ['local', status.NOT_FOUND],
    ]);
    expect((await make(fine, { log: broken })).observed).toEqual([['local', status.INTERNAL]]);
    const authenticate = () => {
      throw new Refused({ refused: 'CALLER_UNKNOWN' });
    };
    expect((await make(fine, { authenticate })).observed).toEqual([[undefined, status.UNAUTHENTICATED]]);
  });

  test('that is refused says why, and what broke stands in the log alone', async () => {
    const refused = await make(() => Promise.reject(new Refused({ refused: 'KEY_NOT_FOUND' })));
    expect(refused.answer.code).toBe(status.NOT_FOUND);
    expect(refused.lines).toMatchObject([{ level: 'info', reason: 'KEY_NOT_FOUND' }]);
    expect(refused.lines[0]).not.toHaveProperty('err');
    const broken = await make(() => Promise.reject(new Error('disk on fire', { cause: new Error('EIO') })));
    expect(broken.answer).toEqual({ code: status.INTERNAL, details: 'internal error' });
    expect(broken.lines).toMatchObject([
      { level: 'error', reason: 'INTERNAL', err: { message: 'disk on fire', cause: { message: 'EIO' } } },
    ]);
  });

  test.for<[name: CallName, level: string]>([
    ['RevokeKey', 'warn'],
    ['VerifyKey', 'debug'],
  ])('%s that the store fails is logged at %s', async ([name, level]) => {
    const { answer, lines } = await make(() => Promise.reject(new StoreFault('unavailable', 'away')), { name });
    expect(answer.code).toBe(status.UNAVAILABLE);
    expect(lines).toMatchObject([{ level, reason: 'STORE_UNAVAILABLE', err: { type: 'StoreFault' } }]);
  });

  test('VerifyKey is logged at debug, but what nobody foresaw at error', async () => {
    expect((await make(() => Promise.resolve({}), { name: 'VerifyKey' })).lines).toMatchObject([{ level: 'debug' }]);
    expect((await make(never, { name: 'VerifyKey' })).lines).toMatchObject([{ level: 'error' }]);
  });

  test('that was cancelled, or whose deadline has passed, does not reach its handler', async () => {
    expect((await make(never, { cancelled: true })).answer.code).toBe(status.CANCELLED);
    for (const deadline of [0, Date.now() - 1, Date.now()]) {
      expect((await make(never, { deadline })).answer.code).toBe(status.DEADLINE_EXCEEDED);
    }
  });

  test('has less time than its client grants, so that it can say why it failed, and never more than 30 seconds', async () => {
    const leftMs = async (deadline: number): Promise<number> => {
      const { answer } = await make((_, call) => Promise.resolve(call.deadline.remainingMs()), { deadline });
      return answer.response as number;
    };
    expect(await leftMs(Date.now() + 5000)).toBeLessThanOrEqual(4900);
    expect(await leftMs(Date.now() + 20_000)).toBeLessThanOrEqual(19_900);
    expect(await leftMs(Date.now() + 20_000)).toBeGreaterThan(10_000);
    for (const far of [Infinity, Date.now() + 3_600_000]) expect(await leftMs(far)).toBeLessThanOrEqual(30_000);
  });

  test('begins no change once its client has gone', async () => {
    const rpc = { cancelled: false };
    const { answer } = await new Promise<{ answer: { code: status } }>((resolve) => {
      const around = {
        authenticate: () => LOCAL_CALLER,
        traceOf,
        clock: systemClock,
        running: new RunningCalls(),
        log: createLog('silent'),
        observe: () => () => undefined,
      };
      const handle: Unary<object, unknown> = async (_, call) => {
        await Promise.resolve();
        rpc.cancelled = true;
        call.beginChange();
        throw new Error('went on');
      };
      const given = Object.assign(rpc, { request: {}, metadata: new Metadata(), getDeadline: () => Infinity });
      unary<object, unknown, ServerUnaryCall<object, unknown>>(
        'CreateKey',
        handle,
        around,
      )(given as unknown as ServerUnaryCall<object, unknown>, (error) =>
        resolve({ answer: { code: error?.code ?? status.OK } }),
      );
    });
    expect(answer.code).toBe(status.CANCELLED);
  });

  test('is answered even where the log is broken', async () => {
    const log = createLog('info', {
      write() {
        throw new Error('no space left');
      },
    });
    expect((await make(() => Promise.resolve({}), { log })).answer.code).toBe(status.INTERNAL);
    expect((await make(never, { log })).answer.code).toBe(status.INTERNAL);
  });
});
