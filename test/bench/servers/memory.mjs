/**
 * What a key in memory takes: `node --expose-gc memory.mjs KEYS` fills the service's cache with so many, each as it is
 * once somebody has verified it, in organizations of a hundred keys, and tells the bytes that this process takes more.
 */
import { Buffer } from 'node:buffer';
import console from 'node:console';
import { createHash } from 'node:crypto';
import process from 'node:process';

import { serializeVerification } from '../../../dist/grpc/verify-key.js';
import { systemClock } from '../../../dist/keys/clock.js';
import { digestPlaceOf, toHex } from '../../../dist/keys/digest.js';
import { newKeyId } from '../../../dist/keys/ids.js';
import { RecordCache } from '../../../dist/verify/record-cache.js';

const KEYSPACE = 'hygiara';
const WARM_UP = 1000;
const KEYS_PER_ORGANIZATION = 100;

const count = Number(process.argv[2]);
await fill(new RecordCache({ clock: systemClock, keysMax: WARM_UP }), WARM_UP);
const before = taken();
const cache = new RecordCache({ clock: systemClock, keysMax: count });
await fill(cache, count);
const after = taken();
console.log(
  JSON.stringify({
    keys: cache.size,
    heapBytes: (after.heap - before.heap) / cache.size,
    residentBytes: (after.resident - before.resident) / cache.size,
  }),
);

async function fill(into, keys) {
  for (let at = 0; at < keys; at += 1) {
    const digest = createHash('sha256').update(`${at}`).digest();
    const found = foundKey(digest, `acme-${Math.floor(at / KEYS_PER_ORGANIZATION)}`);
    const { key } = await into.load(digestPlaceOf(KEYSPACE, toHex(digest)), () => Promise.resolve(found));
    serializeVerification({ decision: 'VALID', key, cacheTtlMs: 0 });
  }
}

/** As a store answers it: no text that another record has too. */
function foundKey(bytes, organizationId) {
  const keyId = own(newKeyId());
  const organization = { keyspace: own(KEYSPACE), organizationId: own(organizationId) };
  const key = {
    ...organization,
    keyId,
    lineageId: own(keyId),
    name: own('CI pipeline'),
    type: '',
    nameIsUnique: false,
    display: own('hrdly_a1b2...'),
    digest: { bytes, pepperVersion: 0 },
    createTime: new Date(),
    createdBy: { type: 'USER', id: own('ada') },
    expireTime: new Date('2100-01-01T00:00:00Z'),
    scopes: JSON.parse('["orders.read","orders.write"]'),
    labels: JSON.parse('{"team":"payments"}'),
    standing: { kind: 'usable' },
    sequence: 1,
    revision: 1,
  };
  return { key, organization: { ...organization, suspended: false, revision: 1, keyCount: 1, sequence: 1 } };
}

function own(text) {
  return Buffer.from(text).toString();
}

function taken() {
  for (let times = 0; times < 4; times += 1) globalThis.gc();
  const { heapUsed, external, arrayBuffers, rss } = process.memoryUsage();
  return { heap: heapUsed + Math.max(external, arrayBuffers), resident: rss };
}
