/** What a gateway is to do with a request, and what it tells the client. */
import type { Decision } from '../keys/judge-key.js';
import type { HttpRules, Keyspace } from '../keys/keyspace.js';
import type { KnownKey } from '../verify/record-cache.js';
import type { Verification } from '../verify/verifier.js';
import type { Header } from './header.js';
import { rateLimitFields } from './rate-limit-fields.js';
import type { Unreadable } from './read-credential.js';
import type { RequestHeaders } from './request-headers.js';
import { forgedNames } from './upstream-headers.js';

export type Answer =
  | {
      readonly kind: 'let_in';
      readonly decision: 'VALID';
      /** What `upstreamHeadersOf` tells the upstream of. */
      readonly key: KnownKey;
      /** The request's headers to remove before it goes upstream, beside those that `upstreamHeadersOf` names. */
      readonly forged: readonly string[];
      /** For the client, in the place of any that the upstream answers under these names. */
      readonly headers: readonly Header[];
    }
  | {
      readonly kind: 'refuse';
      /** Absent: nothing was decided. */
      readonly decision?: Exclude<Decision, 'VALID'>;
      readonly key?: KnownKey;
      readonly status: number;
      readonly headers: readonly Header[];
      readonly body: string;
    };

export type HttpKeyspace = Keyspace & { readonly http: HttpRules };

/** @param now what the rate limit's seconds are counted from */
export function toAnswer(
  verification: Verification,
  { name, http }: HttpKeyspace,
  headers: RequestHeaders,
  now: Date,
): Answer {
  const limited = limitedBy(verification, http, now);
  switch (verification.decision) {
    case 'VALID': {
      const { decision, key } = verification;
      return { kind: 'let_in', decision, key, forged: forgedNames(headers.names()), headers: limited };
    }
    case 'INSUFFICIENT_SCOPE': {
      const { decision, key } = verification;
      const asked = [...challenge(name, http, 'insufficient_scope'), ...limited];
      return { kind: 'refuse', decision, key, ...inJson(403, 'insufficient scope', asked) };
    }
    case 'RATE_LIMITED': {
      const { decision, key } = verification;
      return { kind: 'refuse', decision, key, ...inJson(429, 'rate limit exceeded', limited) };
    }
    case 'MALFORMED':
    case 'NOT_FOUND':
    case 'WRONG_ORGANIZATION':
      return { kind: 'refuse', decision: verification.decision, ...notGood(name, http, 'invalid_token', limited) };
    case 'REVOKED':
    case 'DISABLED':
    case 'EXPIRED':
    case 'ORGANIZATION_SUSPENDED': {
      const { decision, key } = verification;
      return { kind: 'refuse', decision, key, ...notGood(name, http, 'invalid_token', limited) };
    }
  }
}

/** For a request whose credential was not even read. */
export function refuseUnreadable(unreadable: Unreadable, { name, http }: HttpKeyspace): Answer {
  const error = unreadable === 'missing' ? undefined : 'invalid_token';
  return { kind: 'refuse', decision: 'MALFORMED', ...notGood(name, http, error, NO_HEADERS) };
}

/** Where nothing could be decided: nobody is let in, and why is nobody's business out there. */
export const UNAVAILABLE: Answer = {
  kind: 'refuse',
  ...inJson(503, 'service unavailable', [['retry-after', '1']]),
};

/** Where the gateway asked wrong, or something broke: it is its operator who must act. */
export const MISCONFIGURED: Answer = { kind: 'refuse', ...inJson(500, 'internal error', []) };

/** For a request with a header that an upstream would take for this service's. */
export const FORGED: Answer = { kind: 'refuse', ...inJson(400, 'x-keyreeve headers are not for clients to send', []) };

type Told = Pick<Extract<Answer, { kind: 'refuse' }>, 'status' | 'headers' | 'body'>;
/** As RFC 6750, 3.1 names them. */
type ChallengeError = 'invalid_token' | 'insufficient_scope';

const NO_HEADERS: readonly Header[] = [];

/** As the keyspace wants it, the same for whatever is not good. */
function notGood(name: string, http: HttpRules, error: ChallengeError | undefined, limited: readonly Header[]): Told {
  const { status, contentType, body } = http.refusal;
  // RFC 9110, 15.5.2: a 401 says what it wants.
  const asked = status === 401 ? challenge(name, http, error) : NO_HEADERS;
  return { status, headers: [['content-type', contentType], ...asked, ...limited], body };
}

/** For keys in headers of their own no scheme is registered; `ApiKey` is what most call it. */
function challenge(name: string, { credential }: HttpRules, error: ChallengeError | undefined): readonly Header[] {
  const isBearer = credential.kind === 'bearer' && credential.schemes.includes('bearer');
  const told = isBearer && error !== undefined ? `, error="${error}"` : '';
  return [['www-authenticate', `${isBearer ? 'Bearer' : 'ApiKey'} realm="${name}"${told}`]];
}

function inJson(status: number, error: string, headers: readonly Header[]): Told {
  return { status, headers: [['content-type', 'application/json'], ...headers], body: JSON.stringify({ error }) };
}

function limitedBy(verification: Verification, { rateLimitHeaders }: HttpRules, now: Date): readonly Header[] {
  if (!('key' in verification) || !verification.rateLimit) return NO_HEADERS;
  const retryAfterMs = verification.decision === 'RATE_LIMITED' ? verification.retryAfterMs : 0;
  return rateLimitFields(verification.rateLimit, rateLimitHeaders, now, retryAfterMs);
}
