/**
 * Where a listing goes on. A token carries its place and is bound to the listing that made it, so that one which was
 * cut, altered, or taken from another call, organization or filter is refused. It is bound by a digest and not by a
 * key: replicas share no secret, and a token made up with care shows its maker nothing that they may not list anyway.
 */
import { createHash } from 'node:crypto';

import { canonicalJson } from '../keys/chain.js';
import { type ArgumentRefusal, refuseArgument } from '../keys/refusal.js';

export interface PagePlace {
  /** The sequence of the last row that was answered, 1 or more. */
  readonly sequence: number;
  /** When the first page was asked for. */
  readonly at: Date;
}

const PLACE_BYTES = 16;
const BINDING_BYTES = 16;
const TIME_MS_MAX = 8.64e15;

/** @param listing the call, the organization and the filter in normal form: all but the page size */
export function toPageToken(place: PagePlace, listing: object): string {
  const bytes = Buffer.alloc(PLACE_BYTES);
  bytes.writeBigUInt64BE(BigInt(place.sequence), 0);
  bytes.writeBigUInt64BE(BigInt(place.at.getTime()), 8);
  return Buffer.concat([bytes, bindingOf(bytes, listing)]).toString('base64url');
}

/** @returns undefined for an empty token: the first page */
export function parsePageToken(token: string, listing: object): PagePlace | undefined | ArgumentRefusal {
  if (token === '') return undefined;
  const bytes = Buffer.from(token, 'base64url');
  // Decoding skips what is no base64url, so only a token that comes out the same again was whole.
  if (bytes.length === PLACE_BYTES + BINDING_BYTES && bytes.toString('base64url') === token) {
    const place = bytes.subarray(0, PLACE_BYTES);
    const sequence = Number(place.readBigUInt64BE(0));
    const timeMs = Number(place.readBigUInt64BE(8));
    const known = Number.isSafeInteger(sequence) && sequence > 0 && timeMs <= TIME_MS_MAX;
    if (known && bindingOf(place, listing).equals(bytes.subarray(PLACE_BYTES))) {
      return { sequence, at: new Date(timeMs) };
    }
  }
  return refuseArgument(
    'PAGE_TOKEN_INVALID',
    'page_token',
    'page_token must be the next_page_token of a call whose other fields, page_size aside, were the same',
  );
}

function bindingOf(place: Uint8Array, listing: object): Buffer {
  return createHash('sha256').update(place).update(canonicalJson(listing)).digest().subarray(0, BINDING_BYTES);
}
