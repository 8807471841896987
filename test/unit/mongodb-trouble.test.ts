import { expect, test } from 'vitest';

import { StoreFault } from '../../src/store/faults.js';
import { toFault } from '../../src/store/mongodb/trouble.js';

test('a server that ends a connection as it is written to is an outage, not a defect', () => {
  // As the driver rejects where the far side has half-closed.
  const broken = Object.assign(new Error('This socket has been ended by the other party'), { code: 'EPIPE' });
  expect(toFault(broken)).toBeInstanceOf(StoreFault);
  expect(toFault(broken)).toMatchObject({ kind: 'unavailable', cause: broken });
});
