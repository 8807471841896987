/**
 * The end of every credential that was made here: CRC-32 (IEEE) of all before it, in base62. It is public and proves
 * nothing: it lets noise and typing errors drop without a look-up.
 */
import { crc32 } from 'node:zlib';

import { toBase62, valueOfBase62 } from './base62.js';

export const CHECKSUM_LENGTH = 6;

/** @param text ASCII */
export function checksumOf(text: string): string {
  return toBase62(crc32(text), CHECKSUM_LENGTH);
}

/**
 * Whether all of an ASCII text from `bodyAt` on is base62, and ends in the checksum of the rest. In one pass that makes no
 * other text: it runs on every verification, and handing text to zlib takes longer than the sum itself.
 */
export function endsInChecksum(text: string, bodyAt: number): boolean {
  const checksumAt = text.length - CHECKSUM_LENGTH;
  let crc = -1;
  for (let at = 0; at < checksumAt; at += 1) {
    const code = text.charCodeAt(at);
    if (at >= bodyAt && valueOfBase62(code) < 0) return false;
    crc = (crc >>> 8) ^ (CRC_OF_BYTE[(crc ^ code) & 0xff] ?? 0);
  }
  let told = 0;
  for (let at = checksumAt; at < text.length; at += 1) {
    const value = valueOfBase62(text.charCodeAt(at));
    if (value < 0) return false;
    told = told * 62 + value;
  }
  return told === ~crc >>> 0;
}

/** The polynomial, the lowest bit first (https://www.rfc-editor.org/rfc/rfc1952#section-8). */
const POLYNOMIAL = 0xedb88320;

const CRC_OF_BYTE = Int32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit += 1) crc = crc & 1 ? (crc >>> 1) ^ POLYNOMIAL : crc >>> 1;
  return crc;
});
