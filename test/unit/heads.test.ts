import { expect, test } from 'vitest';

import { Heads } from '../../src/store/mongodb/leases/heads.js';

test('the revision after the one before follows it, and no other does', () => {
  const heads = new Heads(10);
  expect(heads.follows('a', 7)).toBe(true);
  expect(heads.follows('a', 8)).toBe(true);
  expect(heads.follows('b', 1)).toBe(true);
  expect(heads.follows('a', 10)).toBe(false);
  expect(heads.follows('b', 1)).toBe(false);
});

test('what was told long ago is forgotten, and nothing is concluded from it', () => {
  const heads = new Heads(2);
  heads.follows('a', 1);
  heads.follows('b', 1);
  heads.follows('a', 2);
  heads.follows('c', 1);
  expect(heads.latest(3)).toEqual(['a', 'c']);
  expect(heads.follows('b', 9)).toBe(true);
});

test('of what is stored it is known whether it was told', () => {
  const heads = new Heads(10);
  heads.follows('a', 3);
  heads.follows('b', 5);
  expect(heads.latest(1)).toEqual(['b']);
  expect(
    heads.areBehind(
      new Map([
        ['a', 3],
        ['b', 4],
        ['c', 9],
      ]),
    ),
  ).toBe(false);
  expect(heads.areBehind(new Map([['a', 4]]))).toBe(true);
});
