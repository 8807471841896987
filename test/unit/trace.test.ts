import { expect, test } from 'vitest';

import { readTrace } from '../../src/grpc/trace.js';
import { TRACEPARENT } from '../support/audit.js';

test('a traceparent of version 00 is taken as it is, whatever its flags', () => {
  for (const traceparent of [TRACEPARENT, TRACEPARENT.replace(/01$/, '00'), TRACEPARENT.replace(/01$/, 'fe')]) {
    expect(readTrace([traceparent])).toEqual({
      traceparent,
      traceId: '4bf92f3577b34da6a3ce929d0e0e4736',
      spanId: '00f067aa0ba902b7',
    });
  }
});

const [, traceId, spanId] = TRACEPARENT.split('-');
test.each([
  ['nothing', ''],
  ['capital letters', TRACEPARENT.toUpperCase()],
  ['a trace id of zeros', `00-${'0'.repeat(32)}-${spanId}-01`],
  ['a span id of zeros', `00-${traceId}-${'0'.repeat(16)}-01`],
  ['the version that is invalid', TRACEPARENT.replace(/^00/, 'ff')],
  ['a version that is not known', TRACEPARENT.replace(/^00/, '01')],
  ['a version of one digit', TRACEPARENT.slice(1)],
  ['no flags', TRACEPARENT.slice(0, -3)],
  ['flags of one digit', TRACEPARENT.slice(0, -1)],
  ['another part behind it', `${TRACEPARENT}-00`],
  ['a digit too many', `${TRACEPARENT}0`],
  ['a line break behind it', `${TRACEPARENT}\n`],
  ['a trace id that is too short', `00-${traceId?.slice(1)}-${spanId}-01`],
  ['a trace id that is too long', `00-0${traceId}-${spanId}-01`],
  ['what is not hexadecimal', TRACEPARENT.replace('4bf9', '4bfg')],
  ['two in one', `${TRACEPARENT}, ${TRACEPARENT}`],
])('%s is as no traceparent', (_, text) => {
  expect(readTrace([text])).toBeUndefined();
});

test('none is none, and neither several nor bytes count', () => {
  expect(readTrace([Buffer.from(TRACEPARENT)])).toBeUndefined();
  expect(readTrace([])).toBeUndefined();
  expect(readTrace([TRACEPARENT, TRACEPARENT])).toBeUndefined();
});
