/**
 * The transport alone: `node echo.mjs generated|raw RESPONSE` answers every VerifyKey with the same message, which is
 * given in base64. `generated`: the request is decoded and the answer encoded by the API's generated code, at each call;
 * `raw`: bytes come and bytes go. grpc-js with the service's own settings, and nothing around the handler.
 */
import { Buffer } from 'node:buffer';
import console from 'node:console';
import process from 'node:process';
import { Server, ServerCredentials } from '@grpc/grpc-js';

import { KeyServiceService, VerifyKeyResponse } from '../../../dist/gen/keyreeve/v1/key_service.js';
import { LIMITS } from '../../../dist/grpc/server.js';

const [, , codec, given] = process.argv;
const bytes = Buffer.from(given, 'base64');
const isRaw = codec === 'raw';
const pass = (message) => message;
const verifyKey = isRaw
  ? { ...KeyServiceService.verifyKey, requestDeserialize: pass, responseSerialize: pass }
  : KeyServiceService.verifyKey;
const answer = isRaw ? bytes : VerifyKeyResponse.decode(bytes);

const server = new Server(LIMITS);
server.addService({ verifyKey }, { verifyKey: (_call, respond) => respond(null, answer) });
server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, port) => {
  if (error) throw error;
  console.log(JSON.stringify({ port }));
});
