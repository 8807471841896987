/** The check that runs on every verification, beside the way in which checksums are made. */
import { crc32 } from 'node:zlib';
import fc from 'fast-check';
import { expect, test } from 'vitest';

import { toBase62, valueOfBase62 } from '../../src/keys/base62.js';
import { CHECKSUM_LENGTH, checksumOf, endsInChecksum } from '../../src/keys/checksum.js';

const prefixes = fc.stringMatching(/^[A-Za-z0-9_-]{0,32}$/);
const bodies = fc.stringMatching(/^[0-9A-Za-z]{0,128}$/);

test('a checksum is CRC-32 as six characters of base62, and is seen to be right', () => {
  fc.assert(
    fc.property(prefixes, bodies, (prefix, body) => {
      const text = prefix + body;
      expect(checksumOf(text)).toBe(toBase62(crc32(text), 6));
      expect(endsInChecksum(text + checksumOf(text), prefix.length)).toBe(true);
    }),
  );
});

test('any other end is seen to be wrong, and so is a body that is not base62, whatever its checksum', () => {
  fc.assert(
    fc.property(bodies, fc.stringMatching(/^[0-9A-Za-z]{6}$/), (body, end) => {
      expect(endsInChecksum(body + end, 0)).toBe(end === checksumOf(body));
    }),
  );
  fc.assert(
    fc.property(bodies, fc.nat(128), fc.string({ unit: 'binary', minLength: 1, maxLength: 1 }), (body, at, odd) => {
      fc.pre(!/^[0-9A-Za-z]$/.test(odd));
      const text = body.slice(0, at) + odd + body.slice(at);
      expect(endsInChecksum(text + checksumOf(text), 0)).toBe(false);
      expect(endsInChecksum(body + checksumOf(body).replace(/.$/u, odd), 0)).toBe(false);
    }),
  );
});

test('a checksum may be greater than any CRC-32, or the text too short for one: neither is right', () => {
  expect(endsInChecksum('z'.repeat(CHECKSUM_LENGTH), 0)).toBe(false);
  // As many as there are, and then some: the same number but for what does not fit 32 bits.
  const crc = crc32('body');
  expect(endsInChecksum(`body${toBase62(crc + 2 ** 32, CHECKSUM_LENGTH)}`, 0)).toBe(false);
  expect(endsInChecksum(`body${toBase62(crc, CHECKSUM_LENGTH)}`, 0)).toBe(true);
  for (const text of ['', '0', '00000']) expect(endsInChecksum(text, 0)).toBe(false);
});

test('a digit of base62 is worth what it stands for, and nothing else is a digit', () => {
  for (let code = 0; code < 0x300; code += 1) {
    const character = String.fromCharCode(code);
    const value = valueOfBase62(code);
    expect(value >= 0).toBe(/^[0-9A-Za-z]$/.test(character));
    if (value >= 0) expect(toBase62(value, 1)).toBe(character);
  }
});
