import { setImmediate as nextTurn } from 'node:timers/promises';

import { BatchVerifyKeysResponse, type BatchVerifyKeysResult } from '../gen/keyreeve/encoded/v1/batch.js';
import type { BatchVerifyKeysRequest, VerifyKeyRequest } from '../gen/keyreeve/v1/key_service.js';
import { refuseArgument } from '../keys/refusal.js';
import type { Verification } from '../verify/verifier.js';
import { orRefuse, Refused } from './errors.js';
import type { Parts } from './parts.js';
import { checkText } from './text.js';
import type { Call, Unary } from './unary.js';
import { serializeVerification, verificationOf } from './verify-key.js';

const REQUESTS_MAX = 100;
/** So that one batch does not take every connection to the store. */
const WAITING_MAX = 10;

export function handleBatchVerifyKeys(parts: Parts): Unary<BatchVerifyKeysRequest, BatchVerifyKeysResponse> {
  const verify = verificationOf(parts);

  /** At once where nothing has to be waited for. */
  function answer(request: VerifyKeyRequest, call: Call): BatchVerifyKeysResult | Promise<BatchVerifyKeysResult> {
    try {
      orRefuse(checkText(request));
      const verification = verify(request, call);
      if (!(verification instanceof Promise)) return respond(verification);
      return verification.then(respond, (error: unknown) => fail(error, call));
    } catch (error) {
      return fail(error, call);
    }
  }

  return async ({ requests }, call) => {
    if (requests.length > REQUESTS_MAX) {
      throw new Refused(refuseArgument('TOO_MANY_ITEMS', 'requests', `requests must be at most ${REQUESTS_MAX}`));
    }
    const results: BatchVerifyKeysResult[] = [];
    const waiting: Promise<void>[] = [];
    for (const [at, request] of requests.entries()) {
      const answered = answer(request, call);
      if (!(answered instanceof Promise)) {
        results[at] = answered;
        continue;
      }
      waiting.push(answered.then((result) => void (results[at] = result)));
      if (waiting.length === WAITING_MAX) await Promise.all(waiting.splice(0));
      // The embedded store answers without ever waiting: others would wait for the whole batch.
      await nextTurn();
    }
    await Promise.all(waiting);
    return { results };
  };
}

/** The answer as it is sent. */
export function serializeBatch(response: BatchVerifyKeysResponse): Buffer {
  return Buffer.from(BatchVerifyKeysResponse.encode(response).finish());
}

function respond(verification: Verification): BatchVerifyKeysResult {
  return { result: { $case: 'response', value: serializeVerification(verification) } };
}

function fail(error: unknown, call: Call): BatchVerifyKeysResult {
  const { code, reason, details: message, field } = call.report(error);
  return { result: { $case: 'failure', value: { code, reason, message, field } } };
}
