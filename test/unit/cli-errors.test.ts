import { Metadata, type ServiceError, status } from '@grpc/grpc-js';
import { expect, test } from 'vitest';

import { toCallFault } from '../../src/cli/service/errors.js';
import { exitCodes, explainExitCodes } from '../../src/cli/exit-codes.js';
import { BadRequest, ErrorInfo, RetryInfo } from '../../src/gen/google/rpc/error_details.js';
import { Status } from '../../src/gen/google/rpc/status.js';

const server = '127.0.0.1:50051';

test('an error of the service is one line: reason, field, message, and the way out in terms of the command', () => {
  const fault = toCallFault(
    errorOf(status.INVALID_ARGUMENT, 'actor is required of this caller.', {
      ErrorInfo: ErrorInfo.encode(ErrorInfo.create({ reason: 'ACTOR_REQUIRED', domain: 'keyreeve' })).finish(),
      BadRequest: BadRequest.encode(BadRequest.create({ fieldViolations: [{ field: 'actor' }] })).finish(),
    }),
    { server },
  );
  expect(fault.message).toBe('ACTOR_REQUIRED (actor): actor is required of this caller; use --actor user:ID');
  expect(fault.exitCode).toBe(exitCodes.refused);
});

test('a mutation whose outcome is open says how to find out, and how long to wait', () => {
  const details = {
    ErrorInfo: ErrorInfo.encode(ErrorInfo.create({ reason: 'STORE_UNAVAILABLE' })).finish(),
    RetryInfo: RetryInfo.encode(RetryInfo.create({ retryDelay: { seconds: 1n, nanos: 1 } })).finish(),
  };
  const error = errorOf(status.UNAVAILABLE, 'the store cannot answer now', details);
  expect(toCallFault(error, { server, requestId: 'r1' }).message).toBe(
    'STORE_UNAVAILABLE: the store cannot answer now; the service asks to wait 2 s; ' +
      'it may have been carried out all the same: repeat it with --request-id r1 to find out',
  );
  expect(toCallFault(error, { server }).message).not.toContain('request-id');
});

test('a call that the service cancels is to be tried again; only one that Ctrl-C ends was interrupted', () => {
  const error = errorOf(status.CANCELLED, 'Call cancelled', {});
  const open = 'it may have been carried out all the same: repeat it with --request-id r1 to find out';
  expect(toCallFault(error, { server, requestId: 'r1', interrupted: false })).toMatchObject({
    exitCode: exitCodes.unavailable,
    message: `CANCELLED: Call cancelled; the service ended the call, as when it shuts down: try again; ${open}`,
  });
  expect(toCallFault(error, { server, requestId: 'r1', interrupted: true })).toMatchObject({
    exitCode: exitCodes.interrupted,
    message: `CANCELLED: interrupted; ${open}`,
  });
});

test('what the service answers before Ctrl-C reaches it stands', () => {
  const details = { ErrorInfo: ErrorInfo.encode(ErrorInfo.create({ reason: 'NAME_TAKEN' })).finish() };
  const fault = toCallFault(errorOf(status.ALREADY_EXISTS, 'taken', details), { server, interrupted: true });
  expect(fault).toMatchObject({ exitCode: exitCodes.refused, message: 'NAME_TAKEN: taken' });
});

test('a refusal leaves nothing open', () => {
  const details = { ErrorInfo: ErrorInfo.encode(ErrorInfo.create({ reason: 'NAME_TAKEN' })).finish() };
  const fault = toCallFault(errorOf(status.ALREADY_EXISTS, 'taken', details), { server, requestId: 'r1' });
  expect(fault.message).toBe('NAME_TAKEN: taken');
});

test.each([
  [status.NOT_FOUND, 'KEY_NOT_FOUND', exitCodes.refused],
  [status.RESOURCE_EXHAUSTED, 'KEY_LIMIT_REACHED', exitCodes.refused],
  [status.RESOURCE_EXHAUSTED, 'OVERLOADED', exitCodes.unavailable],
  [status.ABORTED, 'CONTENTION', exitCodes.unavailable],
  [status.ABORTED, 'ETAG_MISMATCH', exitCodes.refused],
  [status.UNAUTHENTICATED, 'CALLER_UNKNOWN', exitCodes.denied],
  [status.PERMISSION_DENIED, 'ACTOR_NOT_ALLOWED', exitCodes.denied],
  [status.UNAVAILABLE, 'STORE_UNAVAILABLE', exitCodes.unavailable],
  [status.DEADLINE_EXCEEDED, undefined, exitCodes.unavailable],
  [status.INTERNAL, undefined, exitCodes.internal],
  [status.CANCELLED, undefined, exitCodes.unavailable],
])('code %i with the reason %s exits as scripts expect', (code, reason, exitCode) => {
  const details = reason === undefined ? {} : { ErrorInfo: ErrorInfo.encode(ErrorInfo.create({ reason })).finish() };
  expect(toCallFault(errorOf(code, 'x', details), { server }).exitCode).toBe(exitCode);
});

test('of an etag that is out of date what to do is said once', () => {
  const details = { ErrorInfo: ErrorInfo.encode(ErrorInfo.create({ reason: 'ETAG_MISMATCH' })).finish() };
  const message = 'it was changed since the etag was read; read it again and decide anew';
  const fault = toCallFault(errorOf(status.ABORTED, message, details), { server, requestId: 'r1' });
  expect(fault.message).toBe(`ETAG_MISMATCH: ${message}`);
});

test('details that are not what they say leave the status itself', () => {
  const error = errorOf(status.NOT_FOUND, 'x', {});
  error.metadata.set('grpc-status-details-bin', Buffer.from([0xff, 0xff, 0xff]));
  expect(toCallFault(error, { server }).message).toBe('NOT_FOUND: x');
  expect(toCallFault(null, { server }).exitCode).toBe(exitCodes.internal);
});

test('--help explains every exit code', () => {
  for (const code of Object.values(exitCodes)) expect(explainExitCodes()).toMatch(new RegExp(`^ {2}${code} +\\S`, 'm'));
});

function errorOf(code: status, message: string, details: Record<string, Uint8Array>): ServiceError {
  const metadata = new Metadata();
  const anys = Object.entries(details).map(([name, value]) => ({
    typeUrl: `type.googleapis.com/google.rpc.${name}`,
    value: Buffer.from(value),
  }));
  if (anys.length > 0) {
    metadata.set('grpc-status-details-bin', Buffer.from(Status.encode({ code, message, details: anys }).finish()));
  }
  return Object.assign(new Error(message), { code, details: message, metadata });
}
