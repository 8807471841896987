/** Bookkeeping beside changes on one replica set, where other replicas do the same at the same moment. */
import { MongoClient } from 'mongodb';
import { expect, inject, test } from 'vitest';

import { type OrganizationState, unchanged } from '../../src/keys/change.js';
import { newKeyId } from '../../src/keys/ids.js';
import type { Digest } from '../../src/keys/digest.js';
import { type Key, revise } from '../../src/keys/key.js';
import { isRefusal } from '../../src/keys/refusal.js';
import { type KeyRow, toKeyRow } from '../../src/store/mongodb/rows.js';
import type { Store } from '../../src/store/port.js';
import { acme, aKey, noon } from '../support/domain.js';
import { create, inOwnDatabase, openReplica, within } from '../support/mongodb-store.js';

interface Places extends AsyncDisposable {
  readonly one: Store;
  readonly other: Store;
  /** A stranger's way into the database. */
  readonly client: MongoClient;
}

async function openTwo(): Promise<Places> {
  const uri = inOwnDatabase(inject('mongodbUri'));
  const client = new MongoClient(uri);
  const [one, other] = [await openReplica(uri), await openReplica(uri)];
  return {
    one,
    other,
    client,
    async [Symbol.asyncDispose]() {
      for (const store of [one, other]) await store[Symbol.asyncDispose]();
      await client.db().dropDatabase();
      await client.close();
    },
  };
}

async function created(store: Store): Promise<Key> {
  const answer = await create(store);
  if (isRefusal(answer)) throw new Error(answer.refused);
  return answer.key;
}

const PATIENT = { timeout: 15_000 };
const later = (ms: number) => new Date(noon.getTime() + ms);
const peppered = (): Digest => ({ algorithm: 'hmac-sha256', pepperVersion: 1, bytes: aKey().digest.bytes });

async function stored(store: Store, keyId: string): Promise<Key> {
  const [key] = await store.selectKeys(acme, { by: 'key_id', keyId }, within(5000));
  if (!key) throw new Error('the key is gone');
  return key;
}

function rename(store: Store, keyId: string, name: string, onRule: () => void = () => undefined): Promise<unknown> {
  return store.change(
    { organization: acme, selector: { by: 'key_id', keyId } },
    ({ selected }: OrganizationState) => {
      onRule();
      const before = selected[0];
      if (!before) throw new Error('the key is gone');
      return { ...unchanged('renamed'), put: [{ before, after: revise(before, { name }) }] };
    },
    within(20_000),
  );
}

test('a digest that moves while its key changes is moved, and the change is made', async () => {
  await using places = await openTwo();
  const { one, other } = places;
  const key = await created(one);
  let from = key.digest;
  for (let at = 1; at <= 20; at += 1) {
    const to = peppered();
    await Promise.all([rename(one, key.keyId, `name ${at}`), other.moveDigest(key.keyId, from, to, within(20_000))]);
    const now = await stored(one, key.keyId);
    expect(now).toMatchObject({ name: `name ${at}`, revision: at + 1 });
    expect(Buffer.from(now.digest.bytes).equals(to.bytes)).toBe(true);
    from = to;
  }
});

test('a change that saw the digest before it moved is made again on what is stored then', async () => {
  await using places = await openTwo();
  const { one, other, client } = places;
  const key = await created(one);
  // Another's transaction holds the key, so the change below has to wait, or to be turned back, after it has loaded it.
  const session = client.startSession();
  session.startTransaction();
  const keys = client.db().collection<KeyRow>('keys');
  const to = peppered();
  let moving: Promise<void> | undefined;
  let runs = 0;
  try {
    await keys.updateOne({ _id: key.keyId }, { $set: { type: 'held' } }, { session });
    moving = other.moveDigest(key.keyId, key.digest, to, within(20_000));
    const changing = rename(one, key.keyId, 'renamed', () => (runs += 1));
    await expect.poll(() => runs, PATIENT).toBeGreaterThan(1);
    await session.abortTransaction();
    await Promise.all([moving, changing]);
  } finally {
    await session.endSession();
  }
  const now = await stored(one, key.keyId);
  expect(now).toMatchObject({ name: 'renamed', type: key.type, revision: 2, digest: { pepperVersion: 1 } });
  expect(Buffer.from(now.digest.bytes).equals(to.bytes)).toBe(true);
});

test('a digest that is another already is left alone', async () => {
  await using places = await openTwo();
  const { one } = places;
  const key = await created(one);
  await one.moveDigest(key.keyId, peppered(), peppered(), within(5000));
  await one.moveDigest(newKeyId(), key.digest, peppered(), within(5000));
  expect(await stored(one, key.keyId)).toEqual({
    ...key,
    digest: { ...key.digest, bytes: expect.anything() as unknown },
  });
  expect(await one.countDigests(within(5000))).toEqual(new Map([[0, 1]]));
});

test('a digest that another change takes meanwhile makes the rule run again, and then it sees by whom', async () => {
  await using places = await openTwo();
  const { one, client } = places;
  await created(one);
  const wanted = aKey();
  const taker = aKey({ organizationId: 'other', digest: wanted.digest });
  const session = client.startSession();
  session.startTransaction();
  const holders: (string | undefined)[] = [];
  try {
    await client.db().collection<KeyRow>('keys').insertOne(toKeyRow(taker), { session });
    const importing = one.change(
      { organization: acme, digests: [wanted.digest.bytes] },
      (state) => {
        holders.push(state.digestHolder?.keyId);
        return state.digestHolder
          ? { refused: 'DIGEST_TAKEN', by: 'digest' }
          : { ...unchanged('imported'), put: [{ after: wanted }] };
      },
      within(20_000),
    );
    await expect.poll(() => holders.length, PATIENT).toBeGreaterThan(0);
    await session.commitTransaction();
    expect(await importing).toEqual({ refused: 'DIGEST_TAKEN', by: 'digest' });
  } finally {
    await session.endSession();
  }
  expect(holders[0]).toBeUndefined();
  expect(holders.at(-1)).toBe(taker.keyId);
});

test('of last uses that several replicas write at once the latest of each key stays', async () => {
  await using places = await openTwo();
  const { one, other } = places;
  const keyIds = Array.from({ length: 2500 }, () => newKeyId());
  const usesAt = (ms: number) => new Map(keyIds.map((keyId, at) => [keyId, later(ms + at)]));
  const key = await created(one);
  await Promise.all(
    [5, 3, 9, 1].map((ms, at) =>
      (at % 2 ? one : other).recordUses(usesAt(ms).set(key.keyId, later(ms)), within(20_000)),
    ),
  );
  expect((await stored(one, key.keyId)).lastUseTime).toEqual(later(9));
  const rows = await places.client.db().collection<{ _id: string; time: Date }>('last_uses').find().toArray();
  expect(new Map(rows.map(({ _id, time }) => [_id, time]))).toEqual(usesAt(9).set(key.keyId, later(9)));
});

test('of replicas that remember different peppers under one version at once, one is told', async () => {
  await using places = await openTwo();
  for (let version = 1; version <= 10; version += 1) {
    const remembering = [places.one, places.other].map((store, at) =>
      store.rememberPeppers(new Map([[version, `${at}`.repeat(64)]]), within(5000)),
    );
    const settled = await Promise.allSettled(remembering);
    const remembered = (await places.one.pepperFingerprints(within(5000))).get(version);
    expect(settled.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
    expect(remembered).toBe(`${settled[0]?.status === 'fulfilled' ? 0 : 1}`.repeat(64));
  }
});

test('how far a sink has come only rises, whichever replica tells of it, each lane for itself', async () => {
  await using places = await openTwo();
  const { one, other } = places;
  const reach = (sink: string, lane: number, end: number, store = one) =>
    store.outbox.markPublished([], { sink, lane, end });
  const far = 2 ** 40;
  await Promise.all([far, 3, 9, 1].map((end, at) => reach('kafka/a', 0, end, at % 2 ? one : other)));
  await Promise.all([reach('kafka/a', 11, 5), reach('kafka/b', 0, 7), reach('kafka', 0, 1), reach('kafka/a.b', 2, 8)]);
  await reach('kafka/a', 11, 4);
  expect(await other.outbox.positions('kafka/a')).toEqual(
    new Map([
      [0, far],
      [11, 5],
    ]),
  );
  expect(await other.outbox.positions('kafka/b')).toEqual(new Map([[0, 7]]));
  expect(await other.outbox.positions('file')).toEqual(new Map());
});
