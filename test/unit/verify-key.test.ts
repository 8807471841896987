import { expect, test } from 'vitest';

import type { Caller } from '../../src/config/callers.js';
import { VerifyKeyRequest } from '../../src/gen/keyreeve/v1/key_service.js';
import { verificationOf } from '../../src/grpc/verify-key.js';
import { Deadline, systemClock } from '../../src/keys/clock.js';
import { aKeyspace } from '../support/domain.js';

test('a token is looked for in all keyspaces of its caller, also after a reload has given the caller others', async () => {
  const keyspaces = new Map(['one', 'two', 'three'].map((name) => [name, aKeyspace({ name })]));
  const asked: string[][] = [];
  const verify = verificationOf({
    keyspaces,
    verify: (presented) => {
      asked.push(presented.keyspaces.map(({ name }) => name));
      return { decision: 'NOT_FOUND' };
    },
  });
  const gateway = (names: Caller['keyspaces']): Caller => ({
    name: 'gateway',
    roles: new Set(['verifier']),
    keyspaces: names,
    organizations: 'all',
    mayAssertActor: false,
    permissions: [],
  });
  const request = VerifyKeyRequest.fromPartial({ credential: { kind: { $case: 'bearerToken', value: 'a token' } } });
  const before = gateway(new Set(['one', 'two']));
  for (const caller of [before, before, gateway(new Set(['three'])), gateway('all'), before]) {
    await verify(request, { caller, deadline: Deadline.after(1000, systemClock) });
  }
  expect(asked).toEqual([['one', 'two'], ['one', 'two'], ['three'], ['one', 'two', 'three'], ['one', 'two']]);
});
