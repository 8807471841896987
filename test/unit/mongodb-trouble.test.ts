import { MongoServerError, MongoUnexpectedServerResponseError } from 'mongodb';
import { expect, test } from 'vitest';

import { StoreFault } from '../../src/store/faults.js';
import { toFault } from '../../src/store/mongodb/trouble.js';

test('a server that ends a connection as it is written to is an outage, not a defect', () => {
  // As the driver rejects where the far side has half-closed.
  const broken = Object.assign(new Error('This socket has been ended by the other party'), { code: 'EPIPE' });
  expect(toFault(broken)).toBeInstanceOf(StoreFault);
  expect(toFault(broken)).toMatchObject({ kind: 'unavailable', cause: broken });
});

test.for(['ECONNRESET', 'ETIMEDOUT', 'EHOSTUNREACH', 'ERR_STREAM_DESTROYED'])(
  'a connection that breaks while the driver waits to write is an outage, not a defect: %s',
  (code) => {
    expect(toFault(Object.assign(new Error('write'), { code }))).toMatchObject({ kind: 'unavailable' });
  },
);

test.for([
  { name: 'CursorNotFound', code: 43 },
  { name: 'QueryPlanKilled', code: 175 },
  { name: 'LinearizableReadConcernError', code: 187 },
  { name: 'CursorKilled', code: 237 },
])('a read that a member gave up as it fell or came back is an outage, not a defect: $name', ({ name, code }) => {
  const error = new MongoServerError({ ok: 0, code, codeName: name, errmsg: name });
  expect(toFault(error)).toMatchObject({ kind: 'unavailable' });
});

test('a member that was lost between being chosen and being asked is an outage, not a defect', () => {
  const error = new MongoUnexpectedServerResponseError('Selected server does not support retryable writes');
  expect(toFault(error)).toMatchObject({ kind: 'unavailable' });
});

test('what is no outage stays a defect: a file that is not there', () => {
  const error = Object.assign(new Error('no such file'), { code: 'ENOENT' });
  expect(toFault(error)).toBe(error);
});
