/** Two replicas of the service on one replica set: neither's own queue orders the other's changes. */
import { type ClientSession, MongoClient } from 'mongodb';
import { expect, inject, test } from 'vitest';

import { type CloudEvent, hashOf } from '../../src/keys/chain.js';
import { GENESIS_HASH, organizationPath } from '../../src/keys/organization.js';
import type { Store } from '../../src/store/port.js';
import { acme, aKeyspace, limitedTo } from '../support/domain.js';
import { create, inOwnDatabase, openReplica, within } from '../support/mongodb-store.js';

async function openTwo(uri = inOwnDatabase(inject('mongodbUri'))) {
  const [one, other] = await Promise.all([openReplica(uri), openReplica(uri)]);
  return {
    one,
    other,
    async [Symbol.asyncDispose]() {
      await one[Symbol.asyncDispose]();
      await other[Symbol.asyncDispose]();
    },
  };
}

async function organizationOf(store: Store) {
  for await (const organization of store.organizations()) return organization;
  return undefined;
}

test('32 creators of one new organization, on two replicas, get 32 keys, one unbroken chain and the right count', async () => {
  await using stores = await openTwo();
  const { one, other } = stores;
  const creating = Array.from({ length: 32 }, (_, at) =>
    create(at % 2 === 0 ? one : other, { name: `key ${at}`, deadline: within(20_000) }),
  );
  for (const created of await Promise.all(creating)) expect(created).toMatchObject({ replayed: false });
  const { events, head } = await one.listEvents(acme, { types: [], afterSequence: 0, limit: 100 }, within(5000));
  expect(events.map(({ sequence }) => sequence)).toEqual(Array.from({ length: 32 }, (_, at) => at + 1));
  let previous = GENESIS_HASH;
  for (const { cloudEvent, hash } of events) {
    const envelope = JSON.parse(cloudEvent) as CloudEvent;
    expect(envelope.data.previous_hash).toBe(previous);
    expect(hashOf(envelope)).toBe(hash);
    previous = hash;
  }
  expect(head).toEqual({ sequence: 32, hash: previous });
  expect(await organizationOf(other)).toMatchObject({ keyCount: 32, sequence: 32, revision: 32 });
});

test('two replicas that write a new organization at the same moment both succeed', async () => {
  await using stores = await openTwo();
  for (let at = 0; at < 20; at += 1) {
    const organization = { ...acme, organizationId: `org-${at}` };
    const both = await Promise.all([create(stores.one, { organization }), create(stores.other, { organization })]);
    expect(both).toMatchObject([{ replayed: false }, { replayed: false }]);
  }
});

test('of creators on two replicas that race for the last place, exactly one gets it', async () => {
  await using stores = await openTwo();
  const keyspace = limitedTo(1);
  const answers = await Promise.all([stores.one, stores.other].map((store) => create(store, { keyspace })));
  expect(answers).toContainEqual({ refused: 'KEY_LIMIT_REACHED', limit: 1, plan: 'free' });
  expect(answers).toContainEqual(expect.objectContaining({ replayed: false }));
});

test('of creators on two replicas that race for a name, exactly one gets it', async () => {
  await using stores = await openTwo();
  const keyspace = aKeyspace({ names: { required: false, unique: true, default: '' } });
  const answers = await Promise.all([stores.one, stores.other].map((store) => create(store, { keyspace })));
  expect(answers).toContainEqual({ refused: 'NAME_TAKEN' });
  expect(answers).toContainEqual(expect.objectContaining({ replayed: false }));
});

test('of replicas that race for the leadership, exactly one gets it', async () => {
  await using stores = await openTwo();
  const outboxes = [stores.one.outbox, stores.other.outbox];
  const claim = (count: number) => (outbox: Store['outbox'], at: number) =>
    outbox.replaceLeadership(count === 1 ? undefined : { holder, count: count - 1 }, { holder: `${at}`, count });
  let holder = '';
  for (const count of [1, 2, 3]) {
    const won = await Promise.all(outboxes.map(claim(count)));
    expect(won.filter(Boolean)).toHaveLength(1);
    holder = String(won.indexOf(true));
    expect(await stores.one.outbox.readLeadership()).toEqual({ holder, count });
  }
});

test('a replica that was killed in the middle of a change holds the organization for seconds and not a minute', async () => {
  const uri = inOwnDatabase(inject('mongodbUri'));
  await using stores = await openTwo(uri);
  await create(stores.one);
  // What a killed replica leaves on the server: its transaction, with the head taken, and nobody to end it.
  await using killed = new MongoClient(uri, { appName: 'keyreeve' });
  await using stranger = new MongoClient(uri, { appName: 'stranger' });
  const strange = { _id: 'strange/transaction' };
  const begun = await Promise.all([begin(killed, { _id: organizationPath(acme) }), begin(stranger, strange)]);
  expect(await create(stores.other, { deadline: within(15_000) })).toMatchObject({ replayed: false });
  await expect(begun[0].commitTransaction()).rejects.toMatchObject({ codeName: 'NoSuchTransaction' });
  await expect(begun[1].commitTransaction()).resolves.not.toThrow();
  for (const session of begun) await session.endSession();
});

async function begin(client: MongoClient, filter: { _id: string }): Promise<ClientSession> {
  const session = client.startSession();
  session.startTransaction();
  const heads = client.db().collection<{ _id: string }>('organizations');
  await heads.updateOne(filter, { $set: { touched: true } }, { session });
  return session;
}
