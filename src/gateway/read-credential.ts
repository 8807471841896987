/**
 * A request's credential, by a keyspace's rules. What could be meant in two ways is refused: a gateway, the product behind
 * it and this service must never each take another credential for the one that was presented.
 */
import { type PresentedCredential, TOKEN_BYTES_MAX } from '../keys/credential.js';
import type { HttpRules } from '../keys/keyspace.js';
import { Secret } from '../keys/secret.js';
import type { RequestHeaders } from './request-headers.js';

/**
 * Why a credential was not read. `missing`: there is no such header; `repeated`: it came more than once; `malformed`: it is
 * empty, or not one credential in a form that the keyspace allows.
 */
export type Unreadable = 'missing' | 'repeated' | 'malformed' | 'too_long';

/** @returns never `none`: a credential that is not there is `missing` */
export function readCredential(
  { credential }: Pick<HttpRules, 'credential'>,
  headers: RequestHeaders,
): PresentedCredential | Unreadable {
  if (credential.kind === 'bearer') {
    const value = readHeader(headers, credential.header);
    return value.kind === 'read' ? toBearer(value.text, credential.schemes) : value.kind;
  }
  const clientId = readHeader(headers, credential.clientIdHeader);
  const secret = readHeader(headers, credential.secretHeader);
  if (clientId.kind !== 'read') return clientId.kind;
  if (secret.kind !== 'read') return secret.kind;
  for (const { text } of [clientId, secret]) {
    if (!ONE_WORD.test(text)) return 'malformed';
    if (text.length > TOKEN_BYTES_MAX) return 'too_long';
  }
  return { kind: 'pair', clientId: clientId.text, secret: new Secret(secret.text) };
}

/** A scheme and spaces before a token of any length that is looked at. */
const HEADER_LENGTH_MAX = 1024;
/** Printable ASCII, so that every part of the way reads the same; a comma may come from joining two headers. */
const ONE_WORD = /^[\x21-\x2b\x2d-\x7e]+$/;
// RFC 9110, 11.4: the scheme in any case, then one space or more.
const BEARER = /^bearer(?: +(.+))?$/i;

type Header = { readonly kind: 'read'; readonly text: string } | { readonly kind: Unreadable };

function readHeader(headers: RequestHeaders, name: string): Header {
  const [value, ...more] = headers.valuesOf(name);
  if (value === undefined) return { kind: 'missing' };
  if (more.length > 0) return { kind: 'repeated' };
  if (value.length > HEADER_LENGTH_MAX) return { kind: 'too_long' };
  return { kind: 'read', text: value };
}

function toBearer(value: string, schemes: readonly ('bearer' | 'raw')[]): PresentedCredential | Unreadable {
  const bearer = schemes.includes('bearer') ? BEARER.exec(value) : null;
  const token = bearer ? bearer[1] : schemes.includes('raw') ? value : undefined;
  if (token === undefined || !ONE_WORD.test(token)) return 'malformed';
  if (token.length > TOKEN_BYTES_MAX) return 'too_long';
  return { kind: 'bearer', token: new Secret(token) };
}
