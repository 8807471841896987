/**
 * A check that always says yes: `node yes.mjs RESPONSE` answers every Check of Envoy with the same bytes, which are given in
 * base64, and reads nothing of what it is asked. grpc-js with the service's own settings.
 */
import { Buffer } from 'node:buffer';
import console from 'node:console';
import process from 'node:process';
import { Server, ServerCredentials } from '@grpc/grpc-js';

import { AuthorizationService } from '../../../dist/gen/envoy/service/auth/v3/external_auth.js';
import { LIMITS } from '../../../dist/grpc/server.js';

const answer = Buffer.from(process.argv[2], 'base64');
const pass = (message) => message;
const check = { ...AuthorizationService.check, requestDeserialize: pass, responseSerialize: pass };

const server = new Server(LIMITS);
server.addService({ check }, { check: (_call, respond) => respond(null, answer) });
server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, port) => {
  if (error) throw error;
  console.log(JSON.stringify({ port }));
});
