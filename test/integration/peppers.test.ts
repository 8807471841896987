/** Peppers from the first to the retired one, on both stores. */
import { createHash } from 'node:crypto';
import { expect, inject, test } from 'vitest';

import type { Credential } from '../../src/gen/keyreeve/v1/credential.js';
import type { Key } from '../../src/gen/keyreeve/v1/key.js';
import { VerifyKeyRequest, type VerifyKeyResponse } from '../../src/gen/keyreeve/v1/key_service.js';
import { Decision } from '../../src/gen/keyreeve/v1/verification.js';
import { toHex } from '../../src/keys/digest.js';
import { digestsOf, type Pepper } from '../../src/keys/pepper.js';
import { Secret } from '../../src/keys/secret.js';
import { openMongoStore } from '../../src/store/mongodb/open.js';
import { call } from '../support/call.js';
import { aPepper, SOURCE } from '../support/domain.js';
import { create, startServer, type TestServer, type TestServerOptions, toRevoke } from '../support/grpc-server.js';
import { breakable } from '../support/breakable-store.js';
import { inOwnDatabase } from '../support/mongodb-store.js';
import { ample } from '../support/store-calls.js';

const stores: { name: string; options: () => Pick<TestServerOptions, 'openStore'> }[] = [
  { name: 'SQLite', options: () => ({}) },
  {
    name: 'MongoDB',
    options: () => {
      const uri = new Secret(inOwnDatabase(inject('mongodbUri')));
      return { openStore: (clock) => openMongoStore({ uri, source: SOURCE, clock, report: () => undefined }) };
    },
  },
];

async function decisionOf({ keys }: TestServer, credential: Credential): Promise<Decision> {
  const { decision } = await call<VerifyKeyResponse>((done) =>
    keys.verifyKey({ ...VerifyKeyRequest.fromPartial({}), credential }, done),
  );
  return decision;
}

const countsOf = async ({ store }: TestServer) => Object.fromEntries(await store.countDigests(ample()));

test.for(stores)(
  'keys move to the pepper in use as they verify, until the one before can go: $name',
  async ({ options }) => {
    let peppers: Pepper[] = [];
    await using service = await startServer({
      ...options(),
      get peppers() {
        return peppers;
      },
    });
    const restartWith = async (...next: Pepper[]) => {
      peppers = next;
      await service.restart();
    };
    const [first, second, revoked] = [await create(service), await create(service), await create(service)];
    const all = [first, second, revoked];
    const expectAllValid = async () => {
      for (const { credential } of all) expect(await decisionOf(service, credential)).toBe(Decision.VALID);
    };
    expect(await countsOf(service)).toEqual({ 0: 3 });

    await restartWith(aPepper(1, { isStandby: true }));
    all.push(await create(service));
    await expectAllValid();
    expect(await countsOf(service)).toEqual({ 0: 4 });

    await restartWith(aPepper(1));
    all.push(await create(service));
    expect(await countsOf(service)).toEqual({ 0: 4, 1: 1 });
    await expectAllValid();
    await expect.poll(() => countsOf(service)).toEqual({ 1: 5 });
    await expectAllValid();

    await restartWith(aPepper(1), aPepper(2, { isStandby: true }));
    await expectAllValid();
    expect(await countsOf(service)).toEqual({ 1: 5 });

    await restartWith(aPepper(1), aPepper(2));
    await call((done) => service.keys.revokeKey(toRevoke(revoked.key), done));
    all.splice(all.indexOf(revoked), 1);
    expect(await countsOf(service)).toEqual({ 1: 4 });
    expect(await decisionOf(service, revoked.credential)).toBe(Decision.REVOKED);
    await expectAllValid();
    await expect.poll(() => countsOf(service)).toEqual({ 2: 4 });

    await restartWith(aPepper(2));
    await expectAllValid();
    expect(await decisionOf(service, revoked.credential)).toBe(Decision.NOT_FOUND);
  },
);

test.for(stores)(
  'a record that moves before any of the reads of a verification is found: $name',
  async ({ options }) => {
    const forms: Pepper[][] = [[], [aPepper(1)], [aPepper(1), aPepper(2)]];
    let peppers: Pepper[] = [];
    let beforeRead: ((read: number) => Promise<void>) | undefined;
    let reads = 0;
    await using service = await startServer({
      ...options(),
      get peppers() {
        return peppers;
      },
      wrap: (store) =>
        breakable(store, {
          before: async (call) => {
            if (call !== 'findByDigest') return;
            reads += 1;
            await beforeRead?.(reads);
          },
        }),
    });
    const issued: { key: Key; credential: Credential; sha256: Uint8Array; version: number }[] = [];
    for (const [version, known] of forms.slice(0, 2).entries()) {
      peppers = known;
      await service.restart();
      for (let n = 0; n < 3; n += 1) {
        const { key, credential } = await create(service);
        const token = credential.kind?.$case === 'bearerToken' ? credential.kind.value : '';
        issued.push({ key, credential, sha256: createHash('sha256').update(token).digest(), version });
      }
    }
    peppers = forms[2] ?? [];
    await service.restart();
    for (const [at, { key, credential, sha256, version }] of issued.entries()) {
      const digests = digestsOf(toHex(sha256), peppers);
      const [from, to] = [digests[version], digests[2]];
      if (!from || !to) throw new Error('a form is missing');
      let moved = false;
      reads = 0;
      // As another replica does it.
      beforeRead = async (read) => {
        if (read !== (at % 3) + 1) return;
        await service.store.moveDigest(key.keyId, from, to, ample());
        moved = true;
      };
      expect(await decisionOf(service, credential)).toBe(Decision.VALID);
      expect(moved).toBe(at % 3 <= version);
      beforeRead = undefined;
    }
  },
);
