import type {
  BatchVerifyKeysRequest,
  BatchVerifyKeysResponse,
  BatchVerifyKeysResult,
  VerifyKeyRequest,
} from '../gen/keyreeve/v1/key_service.js';
import { refuseArgument } from '../keys/refusal.js';
import { orRefuse, Refused, toFailure } from './errors.js';
import type { Parts } from './parts.js';
import { checkText } from './text.js';
import type { Call, Unary } from './unary.js';
import { verificationOf } from './verify-key.js';

const REQUESTS_MAX = 100;

export function handleBatchVerifyKeys(parts: Parts): Unary<BatchVerifyKeysRequest, BatchVerifyKeysResponse> {
  const answer = verificationOf(parts);

  async function answerOne(request: VerifyKeyRequest, call: Call): Promise<BatchVerifyKeysResult> {
    try {
      orRefuse(checkText(request));
      return { result: { $case: 'response', value: await answer(request, call) } };
    } catch (error) {
      call.report(error);
      return { result: { $case: 'failure', value: toFailure(error) } };
    }
  }

  return async ({ requests }, call) => {
    if (requests.length > REQUESTS_MAX) {
      throw new Refused(refuseArgument('TOO_MANY_ITEMS', 'requests', `requests must be at most ${REQUESTS_MAX}`));
    }
    return { results: await Promise.all(requests.map((request) => answerOne(request, call))) };
  };
}
