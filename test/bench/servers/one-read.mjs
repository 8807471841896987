/**
 * A read of MongoDB for each verification: `node one-read.mjs linearizable|majority RESPONSE`, with the URI, which names
 * the service's database, in MONGODB_URI. As a service without a cache would do it at the least: the request decoded,
 * the token's digest made, its key read by the unique index, and one answer, given in base64, encoded for all.
 */
import { Buffer } from 'node:buffer';
import console from 'node:console';
import { createHash } from 'node:crypto';
import process from 'node:process';
import { Server, ServerCredentials, status } from '@grpc/grpc-js';
import { Binary, MongoClient } from 'mongodb';

import { KeyServiceService, VerifyKeyResponse } from '../../../dist/gen/keyreeve/v1/key_service.js';
import { LIMITS } from '../../../dist/grpc/server.js';

const [, , level, given] = process.argv;
const answer = VerifyKeyResponse.decode(Buffer.from(given, 'base64'));
// As many connections as the service has.
const client = new MongoClient(process.env.MONGODB_URI, { maxPoolSize: 50 });
const keys = client.db().collection('keys');

function verifyKey({ request }, respond) {
  const digest = createHash('sha256').update(request.credential.kind.value).digest();
  keys
    .findOne({ keyspace: 'hygiara', digest: new Binary(digest) }, { readConcern: { level }, maxTimeMS: 5000 })
    .then((found) => {
      if (found?.standing === 'usable') respond(null, answer);
      else respond({ code: status.NOT_FOUND });
    })
    .catch(() => respond({ code: status.UNAVAILABLE }));
}

const server = new Server(LIMITS);
server.addService({ verifyKey: KeyServiceService.verifyKey }, { verifyKey });
server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, port) => {
  if (error) throw error;
  console.log(JSON.stringify({ port }));
});
