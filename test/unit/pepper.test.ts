import { createHash, createHmac, createSecretKey } from 'node:crypto';
import { inspect } from 'node:util';
import { describe, expect, test } from 'vitest';

import { systemRandom } from '../../src/keys/base62.js';
import { newCredential, recognise } from '../../src/keys/credential.js';
import { toHex } from '../../src/keys/digest.js';
import {
  digestsOf,
  digestToStore,
  fingerprintOf,
  pepperContradictions,
  type Peppers,
  versionInUse,
} from '../../src/keys/pepper.js';
import { aKeyspace, aPepper } from '../support/domain.js';

const sha256 = createHash('sha256').update('a token').digest();
const bare = { algorithm: 'sha256', pepperVersion: 0, bytes: sha256 };
/** As they are stored. */
const formsOf = (peppers: Peppers) =>
  digestsOf(toHex(sha256), peppers).map(({ algorithm, pepperVersion, bytes }) => ({ algorithm, pepperVersion, bytes }));
const hmac = (version: number) => ({
  algorithm: 'hmac-sha256',
  pepperVersion: version,
  bytes: createHmac('sha256', Buffer.alloc(32, version)).update(sha256).digest(),
});

describe('a digest', () => {
  test('without peppers is the SHA-256 itself', () => {
    expect(formsOf([])).toEqual([bare]);
    expect(digestToStore(sha256, [])).toEqual(bare);
    expect(versionInUse([])).toBe(0);
  });

  test('is stored as HMAC-SHA-256 of the SHA-256 under the newest pepper in use', () => {
    const peppers = [aPepper(1), aPepper(4)];
    expect(digestToStore(sha256, peppers)).toEqual(hmac(4));
    expect(versionInUse(peppers)).toBe(4);
  });

  test('is looked for in every form, the older first: a record that moves meanwhile cannot be missed', () => {
    expect(formsOf([aPepper(1), aPepper(4)])).toEqual([bare, hmac(1), hmac(4)]);
  });

  test('under a standby pepper is looked for, and nothing is stored under it', () => {
    const standby = aPepper(2, { isStandby: true });
    expect(formsOf([aPepper(1), standby])).toEqual([bare, hmac(1), hmac(2)]);
    expect(digestToStore(sha256, [aPepper(1), standby])).toEqual(hmac(1));
    expect(versionInUse([aPepper(1), standby])).toBe(1);
    expect(digestToStore(sha256, [standby])).toEqual(bare);
    expect(versionInUse([standby])).toBe(0);
  });

  test('that is stored is among those looked for, by every replica that knows one pepper more', () => {
    for (const [before, after] of [
      [[], [aPepper(1, { isStandby: true })]],
      [[aPepper(1, { isStandby: true })], [aPepper(1)]],
      [[aPepper(1)], [aPepper(1), aPepper(2, { isStandby: true })]],
      [
        [aPepper(1), aPepper(2, { isStandby: true })],
        [aPepper(1), aPepper(2)],
      ],
    ] as const) {
      expect(formsOf(after)).toContainEqual(digestToStore(sha256, before));
      expect(formsOf(before)).toContainEqual(digestToStore(sha256, after));
    }
  });
});

test('a fingerprint tells one pepper from another under the same version, and shows neither', () => {
  const fingerprint = fingerprintOf(aPepper(1));
  expect(fingerprint).toMatch(/^[0-9a-f]{64}$/);
  expect(fingerprintOf(aPepper(1))).toBe(fingerprint);
  expect(fingerprintOf(aPepper(1, { key: createSecretKey(Buffer.alloc(32, 9)) }))).not.toBe(fingerprint);
  expect(fingerprint).not.toContain(Buffer.alloc(8, 1).toString('hex'));
});

test('no way to text discloses a pepper', () => {
  const secret = Buffer.from('0123456789abcdef0123456789abcdef');
  const pepper = aPepper(1, { key: createSecretKey(secret) });
  for (const text of [inspect(pepper, { depth: 9, showHidden: true }), JSON.stringify(pepper)]) {
    expect(text).not.toContain(secret.toString());
    expect(text).not.toContain(secret.toString('hex'));
    expect(text).not.toContain(secret.toString('base64'));
  }
});

test('a new credential is kept under the pepper in use, and recognised before, during and after a change of it', () => {
  const keyspace = aKeyspace();
  const made = newCredential(keyspace.credential, [aPepper(1)], systemRandom);
  expect(made.digest).toMatchObject({ algorithm: 'hmac-sha256', pepperVersion: 1 });
  for (const peppers of [[aPepper(1)], [aPepper(1), aPepper(2, { isStandby: true })], [aPepper(1), aPepper(2)]]) {
    const found = recognise({ kind: 'bearer', token: made.secret }, [keyspace], true, peppers);
    expect(found).toMatchObject([{ keyspace }]);
    const sought = found === 'malformed' ? [] : (found[0]?.digests ?? []);
    expect(sought.map(({ pepperVersion, bytes }) => [pepperVersion, bytes])).toContainEqual([1, made.digest.bytes]);
  }
});

describe('what is configured contradicts what is stored', () => {
  const known = new Map([[1, fingerprintOf(aPepper(1))]]);
  const stored = new Set([0, 1]);

  test('not where every version that keys are stored under is there as it was', () => {
    expect(pepperContradictions([aPepper(1)], known, stored)).toEqual([]);
    expect(pepperContradictions([aPepper(1), aPepper(2)], known, stored)).toEqual([]);
    expect(pepperContradictions([], new Map(), new Set([0]))).toEqual([]);
  });

  test('where a version is missing that keys are stored under, and not once none are', () => {
    expect(pepperContradictions([aPepper(2)], known, stored)).toEqual([
      expect.stringMatching(/^KEYREEVE_PEPPERS: version 1 is missing, and unrevoked keys are stored under it/),
    ]);
    expect(pepperContradictions([aPepper(2)], known, new Set([0]))).toEqual([]);
  });

  test('where a version stands for another pepper, used or not', () => {
    const other = aPepper(1, { key: createSecretKey(Buffer.alloc(32, 9)) });
    expect(pepperContradictions([other], known, new Set())).toEqual([
      expect.stringMatching(/^KEYREEVE_PEPPERS: version 1 is another pepper than the one known/),
    ]);
  });
});
