import { expect, test } from 'vitest';

import { type CredentialSource, readCredential } from '../../src/client/read-credential.js';

const BEARER = { header: 'Authorization', scheme: 'Bearer' };
const RAW = { header: 'X-API-Key' };
const PAIR = { clientIdHeader: 'x-metal-client-id', secretHeader: 'x-metal-api-key' };

/** @param fields as they came, the same one several times where it did */
function read(sources: readonly CredentialSource[], ...fields: readonly (readonly [string, string])[]) {
  const headersDistinct: Record<string, string[]> = {};
  for (const [name, value] of fields) (headersDistinct[name.toLowerCase()] ??= []).push(value);
  return readCredential({ headersDistinct }, sources);
}

test('a bearer token is read after its scheme, in any case', () => {
  expect(read([BEARER], ['Authorization', 'Bearer abc'])).toEqual({ credential: 'abc' });
  expect(read([BEARER], ['authorization', ' bearer   abc '])).toEqual({ credential: 'abc' });
});

test('a raw token and a pair are read from their fields', () => {
  expect(read([RAW], ['x-api-key', 'abc'])).toEqual({ credential: 'abc' });
  expect(read([PAIR], ['X-Metal-Client-Id', 'client'], ['X-Metal-Api-Key', 'secret'])).toEqual({
    credential: { clientId: 'client', secret: 'secret' },
  });
});

test('what is missing, empty, or of another scheme is no credential', () => {
  expect(read([BEARER])).toBe('none');
  for (const value of ['', ' ', 'Bearer', 'Bearer ', 'Basic abc', 'abc']) {
    expect(read([BEARER], ['authorization', value])).toBe('none');
  }
  expect(read([RAW], ['x-api-key', 'two words'])).toBe('none');
  expect(read([PAIR])).toBe('none');
});

test('half a pair is one that the service turns down', () => {
  expect(read([PAIR], ['x-metal-client-id', 'client'])).toEqual({ credential: { clientId: 'client', secret: '' } });
  expect(read([PAIR], ['x-metal-api-key', 'secret'])).toEqual({ credential: { clientId: '', secret: 'secret' } });
});

test('a field that comes twice, alike or not, is ambiguous', () => {
  for (const other of ['Bearer abc', 'Bearer xyz', 'Basic abc', '']) {
    expect(read([BEARER], ['authorization', 'Bearer abc'], ['authorization', other])).toBe('ambiguous');
  }
  expect(read([RAW], ['x-api-key', 'a'], ['X-API-Key', 'a'])).toBe('ambiguous');
  expect(read([PAIR], ['x-metal-client-id', 'a'], ['x-metal-client-id', 'b'])).toBe('ambiguous');
});

test('several values folded into one field are ambiguous', () => {
  for (const value of ['Bearer a, Bearer b', 'Bearer a,b', 'Basic a, Bearer b', 'Bearer a b', ',Bearer a']) {
    expect(read([BEARER], ['authorization', value])).toBe('ambiguous');
  }
});

test('credentials in two places are ambiguous, also where they are the same', () => {
  expect(read([BEARER, RAW], ['authorization', 'Bearer a'], ['x-api-key', 'b'])).toBe('ambiguous');
  expect(read([BEARER, RAW], ['authorization', 'Bearer a'], ['x-api-key', 'a'])).toBe('ambiguous');
  expect(read([BEARER, RAW], ['x-api-key', 'b'])).toEqual({ credential: 'b' });
});

test('one field can take a token with its scheme and without', () => {
  const both = [BEARER, { header: 'authorization' }];
  expect(read(both, ['authorization', 'Bearer abc'])).toEqual({ credential: 'abc' });
  expect(read(both, ['authorization', 'abc'])).toEqual({ credential: 'abc' });
});
