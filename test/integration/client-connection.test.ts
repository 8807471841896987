/** How the client gets to the service: TLS, certificates, names, and the caller's token. */
import { Server, ServerCredentials } from '@grpc/grpc-js';
import { expect, test } from 'vitest';

import { openClient } from '../../src/client/client.js';
import { KeyServiceService } from '../../src/gen/keyreeve/v1/key_service.js';
import { Decision } from '../../src/gen/keyreeve/v1/verification.js';
import { faultOf } from '../support/fault-of.js';
import { letIn, startServer } from '../support/grpc-server.js';
import { startService } from '../support/service.js';
import { TEST_TLS } from '../support/test-tls.js';

const { certificate } = TEST_TLS;
const privateKey = TEST_TLS.privateKey.reveal();
const malformed = { allowed: false, reason: 'MALFORMED' };
const ended = { code: 'UNAVAILABLE' };
const soon = { timeoutMs: 500 };

test('with TLS the certificate must be signed by who is trusted, and be of the right name', async () => {
  await using service = await startServer({ tls: TEST_TLS });
  const address = service.address;
  await using trusting = openClient({ address, tls: { ca: certificate } });
  expect(await trusting.verify({ credential: 'x' })).toMatchObject(malformed);
  await using named = openClient({ address, tls: { ca: certificate, serverName: 'localhost' } });
  expect(await named.verify({ credential: 'x' })).toMatchObject(malformed);

  await using strict = openClient({ address, tls: true });
  expect(await faultOf(() => strict.verify({ credential: 'x' }, soon))).toMatchObject(ended);
  await using elsewhere = openClient({ address, tls: { ca: certificate, serverName: 'other.example' } });
  expect(await faultOf(() => elsewhere.verify({ credential: 'x' }, soon))).toMatchObject(ended);
  await using plain = openClient({ address });
  expect(await faultOf(() => plain.verify({ credential: 'x' }, soon))).toMatchObject(ended);
});

test('a client shows its own certificate to a service that asks for one', async () => {
  const server = new Server();
  server.addService(KeyServiceService, {
    verifyKey: (_: unknown, answer: (error: null, response: object) => void) =>
      answer(null, { decision: Decision.MALFORMED }),
  });
  const pair = { cert_chain: Buffer.from(certificate), private_key: Buffer.from(privateKey) };
  const credentials = ServerCredentials.createSsl(Buffer.from(certificate), [pair], true);
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync('127.0.0.1:0', credentials, (error, bound) => {
      if (error) reject(error);
      else resolve(bound);
    });
  });
  try {
    const address = `127.0.0.1:${port}`;
    await using known = openClient({ address, tls: { ca: certificate, certificate, privateKey } });
    expect(await known.verify({ credential: 'x' })).toMatchObject(malformed);
    await using unknown = openClient({ address, tls: { ca: certificate } });
    expect(await faultOf(() => unknown.verify({ credential: 'x' }, soon))).toMatchObject(ended);
  } finally {
    server.forceShutdown();
  }
});

test('the token goes with every call, and is read anew where it can change', async () => {
  const { callers, as } = letIn({ gateway: { roles: ['verifier'] }, provisioner: { roles: ['provisioner'] } });
  const tokenOf = (name: keyof typeof as) => String(as[name].get('authorization')[0]).replace('Bearer ', '');
  await using service = await startServer({ callers });
  const { address } = service;
  await using gateway = openClient({ address, token: tokenOf('gateway') });
  expect(await gateway.verify({ credential: 'x' })).toMatchObject(malformed);
  expect(await Promise.all([gateway.verify({}), gateway.verify({})])).toMatchObject([malformed, malformed]);
  const ref = { keyspace: 'shop', organizationId: 'acme' };
  expect(await gateway.createKey(ref)).toMatchObject({ ok: false, reason: 'CALLER_NOT_ALLOWED' });

  let name: keyof typeof as = 'gateway';
  await using changing = openClient({ address, token: () => tokenOf(name) });
  expect(await changing.createKey(ref)).toMatchObject({ ok: false });
  name = 'provisioner';
  expect(await changing.createKey({ ...ref, name: 'ci' })).toMatchObject({ ok: true });

  await using nobody = openClient({ address });
  expect(await nobody.getOrganization(ref)).toMatchObject({ ok: false, reason: 'CALLER_UNKNOWN' });
  const unknown = { allowed: false, reason: 'CALLER_UNKNOWN', refusal: { code: 'UNAUTHENTICATED' } };
  expect(await Promise.all([nobody.verify({}), nobody.verify({})])).toMatchObject([unknown, unknown]);
});

test('of addresses of which one answers, that one is used', async () => {
  await using service = await startService();
  const port = service.address.split(':')[1] ?? '';
  await using client = openClient({
    address: ['127.0.0.1:1', `localhost:${port}`, '[::1]:1'],
    tls: false,
  });
  for (let at = 0; at < 8; at += 1) expect(await client.verify({ credential: 'x' })).toMatchObject(malformed);
  expect(await Promise.all(Array.from({ length: 8 }, () => client.verify({})))).toMatchObject(Array(8).fill(malformed));
});
