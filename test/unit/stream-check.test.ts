import { expect, test } from 'vitest';

import { StreamCheck, Untold } from '../../src/store/mongodb/leases/stream-check.js';

test('the revision after the one before follows it, and no later one does', () => {
  const check = new StreamCheck(10);
  for (const [path, revision] of [
    ['a', 7],
    ['a', 8],
    ['b', 1],
    ['a', 8],
    ['a', 9],
  ] as const)
    check.told(path, revision);
  expect(() => check.told('a', 11)).toThrow(Untold);
});

test('of what was read ahead the changes are still to come, and the first behind it must follow it', () => {
  const check = new StreamCheck(10);
  check.read('a', 5);
  check.told('a', 4);
  check.told('a', 5);
  expect(() => check.told('a', 7)).toThrow(Untold);
});

test('what was told is not taken for more because more was read', () => {
  const check = new StreamCheck(10);
  check.told('a', 5);
  check.read('a', 7);
  expect(() => check.told('a', 7)).toThrow(Untold);
});

test('what was known long ago is forgotten, and nothing is concluded from it', () => {
  const check = new StreamCheck(2);
  for (const [path, revision] of [
    ['a', 1],
    ['b', 1],
    ['a', 2],
    ['c', 1],
  ] as const)
    check.told(path, revision);
  expect(check.next(3)).toEqual(['a', 'c']);
  check.told('b', 9);
});

test('all are compared, one after the other, and then from the beginning again', () => {
  const check = new StreamCheck(10);
  expect(check.next(2)).toEqual([]);
  for (const path of ['a', 'b', 'c']) check.told(path, 1);
  expect([check.next(2), check.next(2), check.next(2)]).toEqual([
    ['a', 'b'],
    ['c', 'a'],
    ['b', 'c'],
  ]);
});

test('what was stored before a number was drawn must be known when that number, or a later one, is seen', () => {
  const check = new StreamCheck(10);
  check.told('a', 3);
  check.told('b', 5);
  check.expect(
    new Map([
      ['a', 3],
      ['b', 6],
      ['c', 9],
    ]),
    40,
  );
  expect(check.next(1)).toEqual([]);
  check.seen(39);
  check.told('b', 6);
  check.seen(41);
  check.expect(new Map([['a', 4]]), 50);
  expect(() => check.seen(50)).toThrow(Untold);
});
