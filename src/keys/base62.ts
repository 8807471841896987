import { randomBytes } from 'node:crypto';

const ALPHABET = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';
// The largest multiple of 62 that fits a byte: a bare `byte % 62` would favour the alphabet's first eight characters.
const UNBIASED_BYTES = 248;
/** By UTF-16 code. */
const VALUES = Int8Array.from({ length: 128 }, (_, code) => ALPHABET.indexOf(String.fromCharCode(code)));

/** Where random bytes come from; a test gives its own. */
export type RandomBytes = (count: number) => Uint8Array;

export const systemRandom: RandomBytes = randomBytes;

/** Characters drawn evenly from `0-9A-Za-z`. */
export function randomBase62(length: number, random: RandomBytes): string {
  let text = '';
  while (text.length < length) {
    for (const byte of random(length - text.length)) {
      if (byte < UNBIASED_BYTES) text += ALPHABET.charAt(byte % 62);
    }
  }
  return text;
}

/** A whole number, 0 or more, zero-padded to `length` characters. */
export function toBase62(value: number, length: number): string {
  let text = '';
  for (let rest = value; rest > 0; rest = Math.floor(rest / 62)) text = ALPHABET.charAt(rest % 62) + text;
  return text.padStart(length, '0');
}

/** What a digit is worth, by its UTF-16 code; -1: it is none. */
export function valueOfBase62(code: number): number {
  return VALUES[code] ?? -1;
}
