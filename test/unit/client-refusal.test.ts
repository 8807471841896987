import { Metadata, type ServiceError, status } from '@grpc/grpc-js';
import { expect, test } from 'vitest';

import { ServiceFault } from '../../src/client/fault.js';
import { REFUSAL_REASONS, toItemRefusalOrFault, toRefusalOrFault } from '../../src/client/refusal.js';
import { REASON_CODES, Refused, toErrorAnswer } from '../../src/grpc/errors.js';
import type { Refusal } from '../../src/keys/refusal.js';
import { StoreFault } from '../../src/store/faults.js';

/** What gRPC makes of the service's answer. */
function asTold(error: unknown): ServiceError {
  const { code, details, metadata } = toErrorAnswer(error);
  return Object.assign(new Error(details), { code, details, metadata });
}

const told = (refusal: Refusal) => toRefusalOrFault(asTold(new Refused(refusal)));

test('the client knows every reason of the service, each under its code, and none besides', () => {
  const known = Object.entries(REFUSAL_REASONS).flatMap(([code, reasons]) => reasons.map((reason) => [reason, code]));
  const faults = ['OVERLOADED', 'CONTENTION', 'STORE_UNAVAILABLE', 'AUDIT_BACKLOG', 'SHUTTING_DOWN'];
  // Of a route that a gateway checks: no call of this client has one.
  const ofRoutes = ['HTTP_RULES_MISSING', 'ROUTE_FIELD_UNKNOWN'];
  const raised = Object.entries(REASON_CODES).filter(([reason]) => ![...faults, ...ofRoutes].includes(reason));
  expect(Object.fromEntries(known)).toEqual(Object.fromEntries(raised.map(([reason, code]) => [reason, status[code]])));
});

test('a refusal is a value with its reason, metadata and the fields at fault', () => {
  expect(told({ refused: 'KEY_LIMIT_REACHED', limit: 3, plan: 'free', expired: 1 })).toMatchObject({
    ok: false,
    reason: 'KEY_LIMIT_REACHED',
    code: 'RESOURCE_EXHAUSTED',
    metadata: { limit: '3', plan: 'free', expired: '1' },
    violations: [],
  });
  const invalid = { refused: 'NAME_INVALID', field: 'name', message: 'name must be shorter' } as const;
  expect(told(invalid)).toMatchObject({
    reason: 'NAME_INVALID',
    violations: [{ field: 'name', description: 'name must be shorter' }],
  });
});

test('what the service could not do is a fault, with its reason and how long to wait', () => {
  const away = toRefusalOrFault(asTold(new StoreFault('unavailable', 'away')));
  expect(away).toBeInstanceOf(ServiceFault);
  expect(away).toMatchObject({ code: 'UNAVAILABLE', reason: 'STORE_UNAVAILABLE', retryAfterMs: 1000 });
  const contended = toRefusalOrFault(asTold(new StoreFault('contention', 'busy')));
  expect(contended).toBeInstanceOf(ServiceFault);
  expect(contended).toMatchObject({ code: 'ABORTED', reason: 'CONTENTION' });
});

test('an error without a reason of the service, as of a proxy before it, is a fault whatever its code', () => {
  for (const code of Object.values(status).filter(
    (one): one is status => typeof one === 'number' && one !== status.OK,
  )) {
    const error = Object.assign(new Error('no'), { code, details: 'no', metadata: new Metadata() });
    expect(toRefusalOrFault(error)).toBeInstanceOf(ServiceFault);
  }
});

test('an item of a batch is refused as a call of its own, or is a fault', () => {
  const item = { code: status.INVALID_ARGUMENT, reason: 'SCOPES_INVALID', message: 'no', field: 'required_scopes[0]' };
  expect(toItemRefusalOrFault(item)).toMatchObject({
    ok: false,
    reason: 'SCOPES_INVALID',
    violations: [{ field: 'required_scopes[0]' }],
  });
  const away = { code: status.UNAVAILABLE, reason: 'STORE_UNAVAILABLE', message: 'away', field: '' };
  expect(toItemRefusalOrFault(away)).toBeInstanceOf(ServiceFault);
});
