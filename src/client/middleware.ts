/**
 * A door for servers of node:http's kind (Connect, Express, or node:http itself): `keyreeve/middleware`. It lets in who
 * presents a key that the service says yes to, and nobody else: neither where the service is away, nor where the request
 * leaves open what was presented.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';

import type { KeyreeveClient } from './client.js';
import type { Credential } from './credential.js';
import { ServiceFault } from './fault.js';
import { type CredentialSource, readCredential } from './read-credential.js';
import type { Allowed, Denied, RateLimit, VerifyKey } from './verification.js';

export type { CredentialSource } from './read-credential.js';

export interface DoorOptions<Request extends IncomingMessage = IncomingMessage> {
  /**
   * Where the credential stands, `{ header: 'authorization', scheme: 'Bearer' }` by default. Of several places one may be
   * used at a time. It is never read from the query, which ends up in logs.
   */
  readonly credential?: CredentialSource | readonly CredentialSource[] | undefined;
  /** What a key must be good for: the same for all requests, or by the request. */
  readonly ask?: Terms | ((request: Request) => Terms) | undefined;
  /** For a verification. Absent: the client's. */
  readonly timeoutMs?: number | undefined;
  /** Writes the answer to who is not let in, its status and header fields already set. Absent: a short JSON body. */
  readonly refuse?: (refusal: DoorRefusal, request: Request, response: ServerResponse) => void;
  /** Told of what kept a verification from being made: who is refused for it did nothing wrong. */
  readonly onFault?: (fault: unknown) => void;
}

export type Terms = Omit<VerifyKey, 'credential'>;

/** Why a request is not let in. */
export type DoorRefusal =
  /** No credential, or more than one. */
  | { readonly status: 401; readonly reason: 'CREDENTIAL_REQUIRED' | 'CREDENTIAL_AMBIGUOUS' }
  /** The service said no. */
  | { readonly status: 401 | 403 | 429; readonly reason: Denied['reason']; readonly denied: Denied }
  /** The service said nothing. */
  | { readonly status: 503; readonly reason: 'UNAVAILABLE'; readonly fault: unknown };

/** A function as Connect and Express take it. With node:http, `next` is the rest of the handler. */
export type Door<Request extends IncomingMessage = IncomingMessage> = (
  request: Request,
  response: ServerResponse,
  next: () => void,
) => Promise<void>;

/** What let the request in. Undefined: it did not come through a door. */
export function verificationOf(request: IncomingMessage): Allowed | undefined {
  return LET_IN.get(request);
}

// Beside the requests and not on them, where a parser of bodies or another middleware could put one.
const LET_IN = new WeakMap<IncomingMessage, Allowed>();

/**
 * Calls `next` for whom it lets in, and answers all others itself: 401 without credential, with several, or with one that
 * is not good; 403 with one that is not good for this; 429 where its limit is reached; 503 where the service is away.
 * `next` is never called with an error. Fields `RateLimit` and `RateLimit-Policy` go with every answer about a key with a
 * limit, and `Retry-After` with 429 and 503.
 */
export function requireKey<Request extends IncomingMessage = IncomingMessage>(
  client: Pick<KeyreeveClient, 'verify'>,
  options: DoorOptions<Request> = {},
): Door<Request> {
  const { credential: from = BEARER, ask = {}, timeoutMs, refuse = refuseAsJson, onFault } = options;
  const sources = 'length' in from ? from : [from];
  const challenge = challengeOf(sources);

  async function judge(request: Request): Promise<Allowed | DoorRefusal> {
    const presented = readCredential(request, sources);
    if (presented === 'none') return { status: 401, reason: 'CREDENTIAL_REQUIRED' };
    if (presented === 'ambiguous') return { status: 401, reason: 'CREDENTIAL_AMBIGUOUS' };
    try {
      return await verify(request, presented.credential);
    } catch (fault) {
      onFault?.(fault);
      return { status: 503, reason: 'UNAVAILABLE', fault };
    }
  }

  async function verify(request: Request, credential: Credential): Promise<Allowed | DoorRefusal> {
    const terms = typeof ask === 'function' ? ask(request) : ask;
    const verification = await client.verify({ ...terms, credential }, { timeoutMs });
    if (verification.allowed) return verification;
    // What was asked, or who asked, is at fault, and the key was not looked at.
    const { refusal } = verification;
    if (refusal) throw new ServiceFault(refusal.code, refusal.message, { reason: refusal.reason });
    return { status: statusOf(verification), reason: verification.reason, denied: verification };
  }

  return async (request, response, next) => {
    const judged = await judge(request);
    const verification = 'status' in judged ? ('denied' in judged ? judged.denied : undefined) : judged;
    if (verification?.rateLimit) setRateLimit(response, verification.rateLimit);
    if (!('status' in judged)) {
      LET_IN.set(request, judged);
      next();
      return;
    }
    response.statusCode = judged.status;
    if (judged.status === 401 && challenge !== undefined) response.setHeader('WWW-Authenticate', challenge);
    const retryAfterMs = retryAfterMsOf(judged);
    if (retryAfterMs !== undefined) response.setHeader('Retry-After', toSeconds(retryAfterMs));
    refuse(judged, request, response);
  };
}

const BEARER: CredentialSource = { header: 'authorization', scheme: 'Bearer' };

/** 401: no key, or none any more. 403: a key, and not for this. What this version does not know is a 403 as well. */
function statusOf({ reason }: Denied): 401 | 403 | 429 {
  if (reason === 'RATE_LIMITED') return 429;
  return ['MALFORMED', 'NOT_FOUND', 'REVOKED', 'DISABLED', 'EXPIRED'].includes(reason) ? 401 : 403;
}

function challengeOf(sources: readonly CredentialSource[]): string | undefined {
  const schemes = sources.flatMap((source) => ('scheme' in source ? [source.scheme] : []));
  return schemes.length > 0 ? schemes.join(', ') : undefined;
}

function retryAfterMsOf(refusal: DoorRefusal): number | undefined {
  if ('denied' in refusal) return refusal.denied.rateLimit?.retryAfterMs;
  return 'fault' in refusal && refusal.fault instanceof ServiceFault ? refusal.fault.retryAfterMs : undefined;
}

/** As https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/ has them. */
function setRateLimit(response: ServerResponse, { limit, remaining, windowMs, resetTime }: RateLimit): void {
  response.setHeader('RateLimit-Policy', `"key";q=${limit};w=${toSeconds(windowMs)}`);
  const resetMs = resetTime ? Math.max(0, resetTime.getTime() - Date.now()) : windowMs;
  response.setHeader('RateLimit', `"key";r=${remaining};t=${toSeconds(resetMs)}`);
}

function toSeconds(ms: number): number {
  return Math.ceil(ms / 1000);
}

function refuseAsJson({ status }: DoorRefusal, _request: IncomingMessage, response: ServerResponse): void {
  response.setHeader('Content-Type', 'application/json');
  response.end(JSON.stringify({ error: ERRORS[status] }));
}

const ERRORS = { 401: 'unauthorized', 403: 'forbidden', 429: 'too many requests', 503: 'unavailable' } as const;
