import type { Credential } from '../gen/keyreeve/v1/credential.js';
import type { VerifyKeyRequest, VerifyKeyResponse } from '../gen/keyreeve/v1/key_service.js';
import { Decision, type RateLimit } from '../gen/keyreeve/v1/verification.js';
import type { PresentedCredential } from '../keys/credential.js';
import { parseOrganizationId, parseScopes } from '../keys/fields.js';
import { Secret } from '../keys/secret.js';
import type { Verification } from '../verify/verifier.js';
import { keyspacesOf, sees, toKeyspace } from './callers.js';
import { orRefuse } from './errors.js';
import { toDuration, toTimestamp, toVerifiedKeyMessage } from './messages.js';
import type { Parts } from './parts.js';
import type { Call, Unary } from './unary.js';

export function handleVerifyKey(parts: Parts): Unary<VerifyKeyRequest, VerifyKeyResponse> {
  const answer = verificationOf(parts);
  return async (request, call) => {
    const response = await answer(request, call);
    const { decision, key } = response;
    call.note({ decision: Decision[decision], ...(key && { keyspace: key.keyspace, key_id: key.keyId }) });
    return response;
  };
}

/** One verification: the whole of a VerifyKey call, or an item of several. */
export type Answer = (
  request: VerifyKeyRequest,
  call: Pick<Call, 'caller' | 'deadline'>,
) => VerifyKeyResponse | Promise<VerifyKeyResponse>;

/** What answers verifications, at once where nothing has to be waited for. It throws as it rejects: Refused, StoreFault. */
export function verificationOf({ verify, keyspaces }: Pick<Parts, 'verify' | 'keyspaces'>): Answer {
  return (request, { caller, deadline }) => {
    const credential = toPresented(request.credential);
    // A token tells its keyspace by its prefix; a client id and a secret tell none.
    const named = request.keyspace !== '' || credential.kind === 'pair';
    const candidates = named ? [toKeyspace(request.keyspace, caller, keyspaces)] : keyspacesOf(caller, keyspaces);
    const organizationId =
      request.organizationId === '' ? undefined : orRefuse(parseOrganizationId(request.organizationId));
    const requiredScopes = orRefuse(parseScopes(request.requiredScopes, 'required_scopes'));
    const verification = verify(
      {
        credential,
        keyspaces: candidates,
        named,
        sees: (organization) => sees(caller, organization),
        terms: { ...(organizationId !== undefined && { organizationId }), requiredScopes },
      },
      deadline,
    );
    return verification instanceof Promise ? verification.then(toResponse) : toResponse(verification);
  };
}

function toResponse(verification: Verification): VerifyKeyResponse {
  const decision = Decision[verification.decision];
  if (!('key' in verification)) return { ...NO_KEY, decision };
  return {
    decision,
    key: toVerifiedKeyMessage(verification.key),
    rateLimit: toRateLimit(verification),
    cacheTtl: verification.decision === 'VALID' ? toDuration(verification.cacheTtlMs) : undefined,
  };
}

const NO_KEY = { key: undefined, rateLimit: undefined, cacheTtl: undefined };

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
