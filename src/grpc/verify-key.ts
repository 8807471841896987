import type { Caller } from '../config/callers.js';
import type { Credential } from '../gen/keyreeve/v1/credential.js';
import { type VerifyKeyRequest, VerifyKeyResponse } from '../gen/keyreeve/v1/key_service.js';
import { Decision, type RateLimit } from '../gen/keyreeve/v1/verification.js';
import type { PresentedCredential } from '../keys/credential.js';
import { parseOrganizationId, parseScopes } from '../keys/fields.js';
import type { Keyspace } from '../keys/keyspace.js';
import { Secret } from '../keys/secret.js';
import type { KnownKey } from '../verify/record-cache.js';
import type { Verification } from '../verify/verifier.js';
import { keyspacesOf, sees, toKeyspace } from './callers.js';
import { orRefuse } from './errors.js';
import { toDuration, toTimestamp, toVerifiedKeyMessage } from './messages.js';
import type { Parts } from './parts.js';
import type { Call, Unary } from './unary.js';

export function handleVerifyKey(parts: Parts): Unary<VerifyKeyRequest, Verification> {
  const verify = verificationOf(parts);
  return (request, call) => {
    const verification = verify(request, call);
    return verification instanceof Promise ? verification.then((one) => noted(one, call)) : noted(verification, call);
  };
}

function noted(verification: Verification, call: Call): Verification {
  const { decision } = verification;
  if ('key' in verification) {
    const { keyspace, keyId } = verification.key;
    call.note({ decision, keyspace, key_id: keyId });
  } else call.note({ decision });
  return verification;
}

/**
 * The answer as it is sent. A message is its fields one after the other, in any order
 * (https://protobuf.dev/programming-guides/encoding/#order), so that the key is encoded once and not at each answer.
 */
export function serializeVerification(verification: Verification): Buffer {
  const tellsBudget = 'key' in verification && verification.rateLimit !== undefined;
  const terms = tellsBudget ? encodeTerms(verification) : knownTermsOf(verification);
  if (!('key' in verification)) return terms;
  const key = encodedKeyOf(verification.key);
  const message = Buffer.allocUnsafe(terms.length + key.length);
  message.set(terms);
  message.write(key, terms.length, 'latin1');
  return message;
}

function encodeTerms(verification: Verification): Buffer {
  return Buffer.from(VerifyKeyResponse.encode({ ...termsOf(verification), key: undefined }).finish());
}

/** Without a budget answers are alike but for the key: by the decision and for how many milliseconds VALID may be kept. */
const KNOWN_TERMS = new Map<string | number, Buffer>();
/** More than there are decisions and keyspaces; what is told near an expiry differs each time. */
const KNOWN_TERMS_MAX = 100;

function knownTermsOf(verification: Verification): Buffer {
  const { decision } = verification;
  const alike = decision === 'VALID' ? verification.cacheTtlMs : decision;
  const known = KNOWN_TERMS.get(alike);
  if (known) return known;
  const terms = encodeTerms(verification);
  if (KNOWN_TERMS.size >= KNOWN_TERMS_MAX) KNOWN_TERMS.clear();
  KNOWN_TERMS.set(alike, terms);
  return terms;
}

/** A character for each byte. */
function encodedKeyOf(key: KnownKey): string {
  key.encoded ??= Buffer.from(
    VerifyKeyResponse.encode(VerifyKeyResponse.create({ key: toVerifiedKeyMessage(key) })).finish(),
  ).toString('latin1');
  return key.encoded;
}

/** One verification: the whole of a VerifyKey call, or an item of several. */
export type Verify = (
  request: VerifyKeyRequest,
  call: Pick<Call, 'caller' | 'deadline'>,
) => Verification | Promise<Verification>;

/** What verifies, at once where nothing has to be waited for. It throws as it rejects: Refused, StoreFault. */
export function verificationOf({ verify, keyspaces }: Pick<Parts, 'verify' | 'keyspaces'>): Verify {
  // Callers that are read anew are others, and those of before are forgotten with what is known of them.
  const byCaller = new WeakMap<Caller, readonly Keyspace[]>();
  const allOf = (caller: Caller): readonly Keyspace[] => {
    const known = byCaller.get(caller);
    if (known) return known;
    const all = keyspacesOf(caller, keyspaces);
    byCaller.set(caller, all);
    return all;
  };

  return (request, { caller, deadline }) => {
    const credential = toPresented(request.credential);
    // A token tells its keyspace by its prefix; a client id and a secret tell none.
    const named = request.keyspace !== '' || credential.kind === 'pair';
    const candidates = named ? [toKeyspace(request.keyspace, caller, keyspaces)] : allOf(caller);
    const organizationId =
      request.organizationId === '' ? undefined : orRefuse(parseOrganizationId(request.organizationId));
    const requiredScopes = orRefuse(parseScopes(request.requiredScopes, 'required_scopes'));
    return verify(
      {
        caller: caller.name,
        credential,
        keyspaces: candidates,
        named,
        sees: (organization) => sees(caller, organization),
        terms: organizationId === undefined ? { requiredScopes } : { organizationId, requiredScopes },
      },
      deadline,
    );
  };
}

/** What is told beside the key. */
function termsOf(verification: Verification): Omit<VerifyKeyResponse, 'key'> {
  const decision = Decision[verification.decision];
  if (!('key' in verification)) return { decision, rateLimit: undefined, cacheTtl: undefined };
  return {
    decision,
    rateLimit: toRateLimit(verification),
    cacheTtl: verification.decision === 'VALID' ? toDuration(verification.cacheTtlMs) : undefined,
  };
}

function toPresented(message: Credential | undefined): PresentedCredential {
  switch (message?.kind?.$case) {
    case undefined:
      return { kind: 'none' };
    case 'bearerToken':
      return { kind: 'bearer', token: new Secret(message.kind.value) };
    case 'client': {
      const { clientId, secret } = message.kind.value;
      return { kind: 'pair', clientId, secret: new Secret(secret) };
    }
  }
}

function toRateLimit(verification: Extract<Verification, { key: unknown }>): RateLimit | undefined {
  if (!verification.rateLimit) return undefined;
  const { limit, remaining, windowMs, resetTime } = verification.rateLimit;
  return {
    limit,
    remaining,
    window: toDuration(windowMs),
    resetTime: resetTime && toTimestamp(resetTime),
    retryAfter: verification.decision === 'RATE_LIMITED' ? toDuration(verification.retryAfterMs) : undefined,
  };
}
