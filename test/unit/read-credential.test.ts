/** Reading a request's credential: one that is there is found, and what could be meant in two ways is never guessed at. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { readCredential } from '../../src/gateway/read-credential.js';
import type { RequestHeaders } from '../../src/gateway/request-headers.js';
import type { PresentedCredential } from '../../src/keys/credential.js';
import type { HttpRules } from '../../src/keys/keyspace.js';

type Rules = Pick<HttpRules, 'credential'>;
type Schemes = readonly ('bearer' | 'raw')[];

const under = (schemes: Schemes): Rules => ({ credential: { kind: 'bearer', header: 'authorization', schemes } });
const PAIR: Rules = { credential: { kind: 'pair', clientIdHeader: 'x-id', secretHeader: 'x-secret' } };

const headersOf = (headers: Record<string, readonly string[]>): RequestHeaders => ({
  valuesOf: (name) => headers[name] ?? [],
  names: () => Object.keys(headers),
});

/** With its secrets revealed. */
function read(rules: Rules, headers: Record<string, readonly string[]>): unknown {
  const credential = readCredential(rules, headersOf(headers));
  return typeof credential === 'string' ? credential : revealed(credential);
}

function revealed(credential: PresentedCredential): unknown {
  switch (credential.kind) {
    case 'none':
      return 'none';
    case 'bearer':
      return { token: credential.token.reveal() };
    case 'pair':
      return { clientId: credential.clientId, secret: credential.secret.reveal() };
  }
}

const WORD = Array.from({ length: 0x7f - 0x21 }, (_, at) => String.fromCharCode(0x21 + at)).filter(
  (one) => one !== ',',
);
const word = fc.string({ unit: fc.constantFrom(...WORD), minLength: 1, maxLength: 512 });
const schemesOf = fc.constantFrom<Schemes>(['bearer'], ['raw'], ['raw', 'bearer']);

test('a token is read after its scheme, in any case and after any number of spaces', () => {
  const scheme = fc.mixedCase(fc.constant('bearer'));
  fc.assert(
    fc.property(scheme, fc.integer({ min: 1, max: 100 }), word, (name, spaces, token) => {
      const value = `${name}${' '.repeat(spaces)}${token}`;
      expect(read(under(['bearer']), { authorization: [value] })).toEqual({ token });
      expect(read(under(['raw', 'bearer']), { authorization: [value] })).toEqual({ token });
    }),
  );
});

test('a token alone is read where the keyspace allows it, and nowhere else', () => {
  fc.assert(
    fc.property(
      word.filter((one) => one.toLowerCase() !== 'bearer'),
      (token) => {
        expect(read(under(['raw']), { authorization: [token] })).toEqual({ token });
        expect(read(under(['bearer', 'raw']), { authorization: [token] })).toEqual({ token });
        expect(read(under(['bearer']), { authorization: [token] })).toBe('malformed');
      },
    ),
  );
});

test('of whatever a header holds, only one word without a comma is ever read, of 512 bytes at most', () => {
  const text = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 2000 }),
    fc
      .array(fc.oneof(word, fc.constantFrom(' ', ',', '\t', 'Bearer ', '\u00a0', '\0')), { maxLength: 6 })
      .map((parts) => parts.join('')),
  );
  fc.assert(
    fc.property(schemesOf, text, (schemes, value) => {
      const got = read(under(schemes), { authorization: [value] });
      if (typeof got === 'string') return;
      const { token } = got as { token: string };
      expect(token).toMatch(/^[\x21-\x2b\x2d-\x7e]{1,512}$/);
      expect(value.endsWith(token)).toBe(true);
      expect(value.slice(0, -token.length)).toMatch(/^(bearer +)?$/i);
    }),
  );
});

test('a header that came more than once is refused, whatever it holds', () => {
  fc.assert(
    fc.property(schemesOf, fc.array(fc.oneof(word, fc.constant('')), { minLength: 2 }), (schemes, values) => {
      expect(read(under(schemes), { authorization: values })).toBe('repeated');
    }),
  );
});

test('a pair is read whole or not at all', () => {
  fc.assert(
    fc.property(word, word, (clientId, secret) => {
      expect(read(PAIR, { 'x-id': [clientId], 'x-secret': [secret] })).toEqual({ clientId, secret });
      expect(read(PAIR, { 'x-id': [clientId] })).toBe('missing');
      expect(read(PAIR, { 'x-secret': [secret] })).toBe('missing');
      expect(read(PAIR, { 'x-id': [clientId, clientId], 'x-secret': [secret] })).toBe('repeated');
      expect(read(PAIR, { 'x-id': [clientId], 'x-secret': [secret, secret] })).toBe('repeated');
      expect(read(PAIR, { 'x-id': [`${clientId},${clientId}`], 'x-secret': [secret] })).not.toBeTypeOf('object');
      expect(read(PAIR, { 'x-id': [clientId], 'x-secret': [`${secret} ${secret}`] })).not.toBeTypeOf('object');
    }),
  );
});

describe('why not', () => {
  test.for<[why: string, rules: Rules, headers: Record<string, readonly string[]>]>([
    ['missing', under(['raw']), {}],
    ['missing', under(['raw']), { 'x-api-key': ['abc'] }],
    ['malformed', under(['raw']), { authorization: [''] }],
    ['malformed', under(['bearer']), { authorization: ['Bearer'] }],
    ['malformed', under(['raw', 'bearer']), { authorization: ['Bearer'] }],
    ['malformed', under(['raw', 'bearer']), { authorization: ['Bearer '] }],
    ['malformed', under(['bearer']), { authorization: ['Basic YTpi'] }],
    ['malformed', under(['bearer']), { authorization: ['BearerToken abc'] }],
    ['malformed', under(['raw', 'bearer']), { authorization: ['Bearer abc def'] }],
    ['malformed', under(['raw']), { authorization: ['Bearer abc'] }],
    ['malformed', under(['raw', 'bearer']), { authorization: ['abc,def'] }],
    ['too_long', under(['raw']), { authorization: ['a'.repeat(513)] }],
    ['too_long', under(['bearer']), { authorization: [`Bearer ${'a'.repeat(513)}`] }],
    ['too_long', under(['bearer']), { authorization: [`Bearer ${' '.repeat(2000)}abc`] }],
    ['too_long', PAIR, { 'x-id': ['a'.repeat(513)], 'x-secret': ['abc'] }],
    ['malformed', PAIR, { 'x-id': [''], 'x-secret': ['abc'] }],
    ['malformed', PAIR, { 'x-id': ['abc'], 'x-secret': [''] }],
  ])('%s', ([why, rules, headers]) => {
    expect(read(rules, headers)).toBe(why);
  });
});
