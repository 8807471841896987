import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { parsePageToken, toPageToken } from '../../src/grpc/page-token.js';
import { fillPage, parsePageSize } from '../../src/grpc/paging.js';

const listing = { call: 'ListKeys', keyspace: 'shop', organizationId: 'acme', states: ['ACTIVE'] };
const places = fc.record({
  sequence: fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }),
  at: fc.date({ min: new Date(0), max: new Date(8.64e15), noInvalidDate: true }),
});
const refused = { refused: 'PAGE_TOKEN_INVALID', field: 'page_token' };

describe('a page token', () => {
  test('gives back its place to the listing that made it, whatever the order of its fields', () => {
    fc.assert(
      fc.property(places, (place) => {
        const token = toPageToken(place, listing);
        expect(parsePageToken(token, listing)).toEqual(place);
        const { call, ...rest } = listing;
        expect(parsePageToken(token, { ...rest, call })).toEqual(place);
      }),
    );
  });

  test('is refused by any other listing', () => {
    const token = toPageToken({ sequence: 7, at: new Date() }, listing);
    for (const other of [{}, { ...listing, organizationId: 'other' }, { ...listing, states: ['REVOKED'] }]) {
      expect(parsePageToken(token, other)).toMatchObject(refused);
    }
  });

  test('is refused after any change to it', () => {
    fc.assert(
      fc.property(places, fc.nat(), fc.constantFrom(...Array.from('AZaz09-_+/= \u0000é')), (place, at, character) => {
        const token = toPageToken(place, listing);
        const index = at % token.length;
        fc.pre(token[index] !== character);
        const altered = token.slice(0, index) + character + token.slice(index + 1);
        expect(parsePageToken(altered, listing)).toMatchObject(refused);
      }),
    );
  });

  test('is refused where it is any other text, and is no token where it is empty', () => {
    fc.assert(
      fc.property(fc.string({ minLength: 1, unit: 'binary' }), (text) => {
        expect(parsePageToken(text, listing)).toMatchObject(refused);
      }),
    );
    expect(parsePageToken('', listing)).toBeUndefined();
  });
});

describe('a page', () => {
  test('has a size of 50 unless stated, of 500 at most, and no negative one', () => {
    expect([0, 1, 500, 501, 2 ** 31 - 1].map(parsePageSize)).toEqual([50, 1, 500, 500, 500]);
    expect(parsePageSize(-1)).toMatchObject({ refused: 'PAGE_SIZE_INVALID' });
  });

  test('goes on after its last row where any is left, holds one at least, and stays below 1 MiB otherwise', () => {
    const rows = fc.array(fc.integer({ min: 0, max: 2_000_000 }), { maxLength: 20 });
    fc.assert(
      fc.property(rows, fc.integer({ min: 1, max: 20 }), (sizes, pageSize) => {
        const { messages, goOnAfter } = fillPage([...sizes.entries()], pageSize, ([at, bytes]) => ({
          message: at,
          bytes,
        }));
        expect(messages).toEqual(messages.map((_, at) => at));
        expect(messages.length).toBeGreaterThanOrEqual(Math.min(1, sizes.length));
        expect(messages.length).toBeLessThanOrEqual(pageSize);
        const total = messages.reduce((sum, at) => sum + (sizes[at] ?? 0), 0);
        if (messages.length > 1) expect(total).toBeLessThanOrEqual(1024 * 1024);
        expect(goOnAfter?.[0]).toBe(messages.length < sizes.length ? messages.at(-1) : undefined);
      }),
    );
  });
});
