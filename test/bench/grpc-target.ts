/** What is measured through gRPC: a server, a call and one request for it, whose answer has been seen. */
import { credentials } from '@grpc/grpc-js';

import {
  BatchVerifyKeysRequest,
  BatchVerifyKeysResponse,
  KeyServiceClient,
  VerifyKeyResponse,
} from '../../src/gen/keyreeve/v1/key_service.js';
import { Decision } from '../../src/gen/keyreeve/v1/verification.js';
import { call } from '../support/call.js';
import type { LoadTarget } from './h2load.js';
import { batchFrame, toVerifyRequest, verifyFrame } from './keys.js';
import type { WireTarget } from './wire.js';

export const VERIFY_KEY = '/keyreeve.v1.KeyService/VerifyKey';
const BATCH_VERIFY_KEYS = '/keyreeve.v1.KeyService/BatchVerifyKeys';
const HEADERS = ['content-type: application/grpc', 'te: trailers'];
// A flag and four bytes of length before each message.
const PREFIX_BYTES = 5;

export interface GrpcTarget {
  readonly load: LoadTarget;
  readonly wire: WireTarget;
  readonly frame: Buffer;
  /** @throws Error unless the answer is VALID throughout */
  readonly probe: () => Promise<unknown>;
}

export function openClient(address: string): KeyServiceClient {
  return new KeyServiceClient(address, credentials.createInsecure());
}

/** @throws Error unless the key is VALID */
export async function verifyOne(client: KeyServiceClient, token: string): Promise<VerifyKeyResponse> {
  const response = await call<VerifyKeyResponse>((done) => client.verifyKey(toVerifyRequest(token), done));
  if (response.decision !== Decision.VALID) throw new Error(`the key is ${Decision[response.decision]}`);
  return response;
}

export async function toUnaryTarget(client: KeyServiceClient, address: string, token: string): Promise<GrpcTarget> {
  const answer = VerifyKeyResponse.encode(await verifyOne(client, token)).finish();
  return toTarget(address, VERIFY_KEY, verifyFrame(token), answer.length, () => verifyOne(client, token));
}

export async function toBatchTarget(
  client: KeyServiceClient,
  address: string,
  tokens: readonly string[],
): Promise<GrpcTarget> {
  const request = BatchVerifyKeysRequest.fromPartial({ requests: tokens.map(toVerifyRequest) });
  const verify = async () => {
    const response = await call<BatchVerifyKeysResponse>((done) => client.batchVerifyKeys(request, done));
    const bad = response.results.find(
      ({ result }) => result?.$case !== 'response' || result.value.decision !== Decision.VALID,
    );
    if (bad || response.results.length !== tokens.length) throw new Error('a key of the batch is not VALID');
    return response;
  };
  const answer = BatchVerifyKeysResponse.encode(await verify()).finish();
  return toTarget(address, BATCH_VERIFY_KEYS, batchFrame(tokens), answer.length, verify);
}

function toTarget(
  address: string,
  path: string,
  frame: Buffer,
  messageBytes: number,
  probe: () => Promise<unknown>,
): GrpcTarget {
  return {
    load: { url: `http://${address}${path}`, headers: HEADERS, body: frame, answerBytes: PREFIX_BYTES + messageBytes },
    wire: { address, path },
    frame,
    probe,
  };
}
