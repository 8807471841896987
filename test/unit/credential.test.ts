import { createHash } from 'node:crypto';
import { crc32 } from 'node:zlib';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { randomBase62, systemRandom, toBase62 } from '../../src/keys/base62.js';
import {
  BODY_LENGTH_MIN,
  displayOfUnknown,
  matches,
  newCredential,
  type PresentedCredential,
  recognise,
  takeOver,
} from '../../src/keys/credential.js';
import { newClientId } from '../../src/keys/ids.js';
import { toHex } from '../../src/keys/digest.js';
import type { CredentialForm, Keyspace } from '../../src/keys/keyspace.js';
import { digestsOf } from '../../src/keys/pepper.js';
import { Secret } from '../../src/keys/secret.js';
import { aKey, aKeyspace, aPepper } from '../support/domain.js';

const BASE62 = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';

const forms: fc.Arbitrary<CredentialForm> = fc.record({
  kind: fc.constant('bearer' as const),
  prefix: fc.stringMatching(/^[a-z]{1,8}_([a-z]{1,8}_)?$/),
  bodyLength: fc.integer({ min: 32, max: 128 }),
  display: fc.constantFrom('first_four' as const, 'last_four' as const),
});

function bearer(text: string): PresentedCredential {
  return { kind: 'bearer', token: new Secret(text) };
}

function keyspaceOf(credential: CredentialForm, fields: Partial<Keyspace> = {}): Keyspace {
  return aKeyspace({ credential, ...fields });
}

describe('a bearer token', () => {
  test('is recognised wherever it was made', () => {
    fc.assert(
      fc.property(forms, fc.boolean(), (form, named) => {
        const made = newCredential(form, [], systemRandom);
        const keyspace = keyspaceOf(form);
        expect(recognise(bearer(made.secret.reveal()), [keyspace], named, [])).toEqual([
          { keyspace, digests: digestsOf(toHex(made.digest.bytes), []) },
        ]);
      }),
    );
  });

  test('with any one character changed is malformed', () => {
    fc.assert(
      fc.property(forms, fc.nat(), fc.nat({ max: 61 }), (form, place, replacement) => {
        const token = newCredential(form, [], systemRandom).secret.reveal();
        const at = place % token.length;
        const changed = token.slice(0, at) + BASE62.charAt(replacement) + token.slice(at + 1);
        fc.pre(changed !== token);
        expect(recognise(bearer(changed), [keyspaceOf(form)], true, [])).toBe('malformed');
      }),
      { numRuns: 2000 },
    );
  });

  test('cut short, made longer or surrounded by white space is malformed', () => {
    const form = aKeyspace().credential;
    const token = newCredential(form, [], systemRandom).secret.reveal();
    for (const text of [token.slice(1), token.slice(0, -1), `${token}0`, ` ${token}`, `${token}\n`, '', form.prefix]) {
      expect(recognise(bearer(text), [keyspaceOf(form)], true, [])).toBe('malformed');
    }
  });

  test('of another keyspace is malformed where one is named', () => {
    const mine = aKeyspace({ name: 'mine', credential: { ...aKeyspace().credential, prefix: 'mine_' } });
    const other = aKeyspace({ name: 'other', credential: { ...aKeyspace().credential, prefix: 'other_' } });
    const token = bearer(newCredential(other.credential, [], systemRandom).secret.reveal());
    expect(recognise(token, [mine], true, [])).toBe('malformed');
    expect(recognise(token, [mine, other], false, [])).toMatchObject([{ keyspace: { name: 'other' } }]);
  });

  test('without prefix is recognised only where the keyspace is named', () => {
    const keyspace = keyspaceOf({ ...aKeyspace().credential, prefix: '' });
    const token = bearer(newCredential(keyspace.credential, [], systemRandom).secret.reveal());
    expect(recognise(token, [keyspace], true, [])).toHaveLength(1);
    expect(recognise(token, [keyspace], false, [])).toBe('malformed');
  });

  test('over 512 bytes is malformed, whatever a legacy pattern says', () => {
    const keyspace = aKeyspace({ legacy: { pattern: /^x+$/, digest: 'sha256' } });
    expect(recognise(bearer('x'.repeat(512)), [keyspace], true, [])).toHaveLength(1);
    expect(recognise(bearer('x'.repeat(513)), [keyspace], true, [])).toBe('malformed');
  });

  test('that fits a legacy pattern is looked up by its SHA-256 though it has no checksum', () => {
    const text = 'hd_live_a1b2c3d4e5f6g7h8i9j0k1l2m3n4o5p6';
    const keyspace = aKeyspace({ legacy: { pattern: /^hd_live_[a-z0-9]{32}$/, digest: 'sha256' } });
    const found = recognise(bearer(text), [keyspace], false, []);
    expect(found).toMatchObject([{ digests: [{ algorithm: 'sha256', pepperVersion: 0 }] }]);
    const [lookUp] = found as Exclude<typeof found, 'malformed'>;
    expect(Buffer.from(lookUp?.digests[0]?.bytes ?? []).toString('hex')).toBe(
      createHash('sha256').update(text).digest('hex'),
    );
  });

  test('ends in the CRC-32 of all before it, as six characters of base62', () => {
    // A known token, so that the format cannot drift: checksums in clients and scanners rely on it.
    const text = `hm_${'0'.repeat(43)}`;
    expect(crc32('123456789')).toBe(0xcbf43926);
    const made = newCredential(
      { kind: 'bearer', prefix: 'hm_', bodyLength: 49, display: 'last_four' },
      [],
      (count) => new Uint8Array(count),
    );
    expect(made.secret.reveal()).toBe(text + toBase62(crc32(text), 6));
    expect(made.display).toBe(`hm_****${made.secret.reveal().slice(-4)}`);
  });

  test('shows its prefix and first four, or its last four, never both', () => {
    fc.assert(
      fc.property(forms, (form) => {
        const { secret, display } = newCredential(form, [], systemRandom);
        const token = secret.reveal();
        const first = `${token.slice(0, form.prefix.length + 4)}...`;
        const last = `${form.prefix}****${token.slice(-4)}`;
        expect(display).toBe(form.display === 'first_four' ? first : last);
      }),
    );
  });

  test('keeps 128 bits to itself in the shortest form allowed, beside six of checksum and four that are shown', () => {
    expect((BODY_LENGTH_MIN - 10) * Math.log2(62)).toBeGreaterThanOrEqual(128);
    expect((BODY_LENGTH_MIN - 11) * Math.log2(62)).toBeLessThan(128);
  });
});

describe('a client id and its secret', () => {
  const keyspace = keyspaceOf({ kind: 'pair', prefix: '', bodyLength: 49, display: 'last_four' });
  const made = newCredential(keyspace.credential, [], systemRandom);
  const clientId = made.clientId ?? '';
  const pair = (id: string, secret: string): PresentedCredential => ({
    kind: 'pair',
    clientId: id,
    secret: new Secret(secret),
  });

  test('are looked up by the secret and matched by the client id', () => {
    const found = recognise(pair(clientId, made.secret.reveal()), [keyspace], true, []);
    expect(found).toEqual([{ keyspace, digests: digestsOf(toHex(made.digest.bytes), []), clientId }]);
    const [lookUp] = found as Exclude<typeof found, 'malformed'>;
    expect(lookUp && matches(aKey({ clientId }), lookUp)).toBe(true);
    expect(lookUp && matches(aKey({ clientId: newClientId() }), lookUp)).toBe(false);
    expect(lookUp && matches(aKey({}), lookUp)).toBe(false);
  });

  test('answer alike for a half that is wrong in form, empty or too long, so that no half can be guessed alone', () => {
    const secret = made.secret.reveal();
    const halves: [string, string][] = [
      ['', secret],
      [clientId, ''],
      ['', ''],
      ['client_x', secret],
      [clientId, `${secret}x`],
      [clientId, 'x'.repeat(5000)],
      ['x'.repeat(5000), secret],
    ];
    const key = aKey({ clientId, digest: made.digest });
    for (const [id, text] of halves) {
      const lookUps = recognise(pair(id, text), [keyspace], true, []);
      if (lookUps === 'malformed') throw new Error('the form of a half is told');
      expect(lookUps.filter((lookUp) => matches(key, lookUp))).toEqual([]);
      // Nothing is looked up for text that is no secret.
      expect(lookUps).toHaveLength(text === secret ? 1 : 0);
    }
  });

  test('are malformed in a keyspace of bearer tokens, as a token is in a keyspace of pairs, and none in either', () => {
    expect(recognise(pair(clientId, made.secret.reveal()), [aKeyspace()], true, [])).toBe('malformed');
    expect(recognise(bearer(made.secret.reveal()), [keyspace], true, [])).toBe('malformed');
    expect(recognise({ kind: 'none' }, [keyspace, aKeyspace()], true, [])).toBe('malformed');
  });

  test('never match a bearer look-up that finds the digest of a secret', () => {
    expect(matches(aKey({ clientId }), { keyspace, digests: digestsOf(toHex(made.digest.bytes), []) })).toBe(false);
  });
});

describe('a credential from before', () => {
  // HookDeploy's documented sample key.
  const sample = 'hd_live_a1b2c3d4e5f6g7h8i9j0k1l2m3n4o5p6';
  const hookdeploy = aKeyspace({
    credential: { kind: 'bearer', prefix: 'hd_live_', bodyLength: 32, display: 'first_four' },
    legacy: { pattern: /^hd_live_[a-z0-9]{32}$/, digest: 'sha256' },
  });
  const sha256 = (text: string) => createHash('sha256').update(text).digest();

  test('is recognised by its SHA-256 in every form, named or not: the documented sample verifies', () => {
    for (const named of [true, false]) {
      const found = recognise(bearer(sample), [hookdeploy], named, [aPepper(1), aPepper(2)]);
      const [lookUp, ...others] = found === 'malformed' ? [] : found;
      expect(others).toEqual([]);
      expect(lookUp?.digests).toEqual(digestsOf(toHex(sha256(sample)), [aPepper(1), aPepper(2)]));
      expect(lookUp && matches(aKey(), lookUp)).toBe(true);
    }
  });

  test('is taken over with the digest that it is recognised by, and shows as little as a new one', () => {
    expect(takeOver(new Secret(sample), hookdeploy)).toEqual({
      sha256: sha256(sample),
      display: 'hd_live_a1b2...',
    });
    const made = newCredential(hookdeploy.credential, [], systemRandom);
    expect(takeOver(made.secret, hookdeploy)).toEqual({ sha256: made.digest.bytes, display: made.display });
  });

  test('that lacks the prefix shows its own four characters alone, and no prefix that it does not have', () => {
    const legacy = { pattern: /^[a-z0-9]{20}$/, digest: 'sha256' } as const;
    const old = new Secret('abcdefghij0123456789');
    const form = { ...hookdeploy.credential, prefix: 'a_long_prefix_' };
    expect(takeOver(old, { credential: form, legacy })?.display).toBe('abcd...');
    expect(takeOver(old, { credential: { ...form, display: 'last_four' }, legacy })?.display).toBe('****6789');
  });

  test('that would never be recognised is not taken over', () => {
    for (const text of ['', 'hd_live_', sample.toUpperCase(), `${sample}x`, 'x'.repeat(513)]) {
      expect(takeOver(new Secret(text), hookdeploy)).toBeUndefined();
      expect(recognise(bearer(text), [hookdeploy], true, [])).toBe('malformed');
    }
    const any = { pattern: /^x+$/, digest: 'sha256' } as const;
    expect(takeOver(new Secret('x'.repeat(513)), { ...hookdeploy, legacy: any })).toBeUndefined();
  });

  test('of which nothing is known shows the prefix alone', () => {
    expect(displayOfUnknown(hookdeploy.credential)).toBe('hd_live_...');
    expect(displayOfUnknown({ ...hookdeploy.credential, display: 'last_four' })).toBe('hd_live_****');
  });

  test('in pair form is found by its secret, and needs the client id that it came with, of whatever form', () => {
    const keyspace = aKeyspace({
      credential: { kind: 'pair', prefix: '', bodyLength: 49, display: 'last_four' },
      legacy: { pattern: /^sk-[a-z]{10}$/, digest: 'sha256' },
    });
    const presented = (clientId: string, secret: string): PresentedCredential => ({
      kind: 'pair',
      clientId,
      secret: new Secret(secret),
    });
    const found = recognise(presented('tenant 7', 'sk-abcdefghij'), [keyspace], true, []);
    const [lookUp] = found === 'malformed' ? [] : found;
    expect(lookUp?.digests.map(({ bytes }) => bytes)).toEqual([sha256('sk-abcdefghij')]);
    expect(lookUp && matches(aKey({ clientId: 'tenant 7' }), lookUp)).toBe(true);
    expect(lookUp && matches(aKey({ clientId: 'tenant 8' }), lookUp)).toBe(false);
    expect(lookUp && matches(aKey(), lookUp)).toBe(false);
    expect(recognise(presented('tenant 7', 'sk-ABC'), [keyspace], true, [])).toEqual([]);
  });
});

describe('random characters', () => {
  test('are drawn without favouring any', () => {
    // Every byte value once: an unbiased draw uses each character equally often and drops the bytes that are left over.
    const every = Uint8Array.from({ length: 256 }, (_, at) => at);
    const random = (count: number): Uint8Array => every.subarray(0, Math.min(count, 256));
    const text = randomBase62(248, random);
    const counts = new Map<string, number>();
    for (const character of text) counts.set(character, (counts.get(character) ?? 0) + 1);
    expect([...counts.values()].every((count) => count === 4)).toBe(true);
    expect(counts.size).toBe(62);
  });
});
