import { expect, test } from 'vitest';

import { Heads } from '../../src/store/mongodb/leases/heads.js';

test('the revision after the one before follows it, and no later one does', () => {
  const heads = new Heads(10);
  expect(heads.follows('a', 7)).toBe(true);
  expect(heads.follows('a', 8)).toBe(true);
  expect(heads.follows('b', 1)).toBe(true);
  expect(heads.follows('a', 10)).toBe(false);
});

test('of what was read ahead the changes are still to come, and the first behind it must follow it', () => {
  const heads = new Heads(10);
  heads.read('a', 5);
  expect(heads.follows('a', 4)).toBe(true);
  expect(heads.follows('a', 5)).toBe(true);
  expect(heads.follows('a', 7)).toBe(false);
});

test('what was told is not taken for more because more was read', () => {
  const heads = new Heads(10);
  heads.follows('a', 5);
  heads.read('a', 7);
  expect(heads.follows('a', 7)).toBe(false);
});

test('what was known long ago is forgotten, and nothing is concluded from it', () => {
  const heads = new Heads(2);
  heads.follows('a', 1);
  heads.follows('b', 1);
  heads.follows('a', 2);
  heads.follows('c', 1);
  expect(heads.next(3)).toEqual(['a', 'c']);
  expect(heads.follows('b', 9)).toBe(true);
});

test('all are named, one after the other, and then from the beginning again', () => {
  const heads = new Heads(10);
  expect(heads.next(2)).toEqual([]);
  for (const path of ['a', 'b', 'c']) heads.follows(path, 1);
  expect([heads.next(2), heads.next(2), heads.next(2)]).toEqual([
    ['a', 'b'],
    ['c', 'a'],
    ['b', 'c'],
  ]);
});

test('of what is stored it is known whether it was told', () => {
  const heads = new Heads(10);
  heads.follows('a', 3);
  heads.follows('b', 5);
  const stored: [string, number][] = [
    ['a', 3],
    ['b', 4],
    ['c', 9],
  ];
  expect(heads.behind(new Map(stored))).toBeUndefined();
  expect(heads.behind(new Map([...stored, ['b', 6]]))).toBe('b');
});
