import { expect, test } from 'vitest';

import { openClient } from '../../src/client/client.js';

const ADDRESS = '127.0.0.1:50051';

test('what cannot be an address is said to be none before anything is sent', () => {
  for (const address of ['', 'localhost', 'localhost:0', 'localhost:65536', '::1:50051', 'http://a:1', 'a:1,b:2', []]) {
    expect(() => openClient({ address })).toThrow(TypeError);
  }
});

test('names and addresses are taken, one or several', async () => {
  for (const address of [ADDRESS, 'localhost:1', '[::1]:50051', ['a.example:1', 'b.example:2']]) {
    await openClient({ address, tls: false }).close();
  }
});

test('a token that cannot travel is not repeated', () => {
  for (const token of ['', 'two words', 'kréeve', 'line\n']) {
    expect(() => openClient({ address: ADDRESS, token })).toThrow(/^token: expected printable ASCII without spaces$/);
  }
});

test('a time-out that is none is said to be none', async () => {
  for (const ms of [0, -1, Number.NaN, Number.POSITIVE_INFINITY]) {
    expect(() => openClient({ address: ADDRESS, timeoutMs: ms })).toThrow(TypeError);
    expect(() => openClient({ address: ADDRESS, verifyTimeoutMs: ms })).toThrow(TypeError);
    await using client = openClient({ address: ADDRESS });
    await expect(client.verify({}, { timeoutMs: ms })).rejects.toThrow(TypeError);
  }
});

test('a certificate of the client needs its key', () => {
  expect(() => openClient({ address: ADDRESS, tls: { certificate: 'x' } })).toThrow(TypeError);
});
