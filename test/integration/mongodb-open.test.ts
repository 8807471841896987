/** What a start says about a MongoDB that cannot be used, and what it takes from the URI. */
import { inspect } from 'node:util';
import { MongoClient } from 'mongodb';
import { afterAll, beforeAll, expect, test } from 'vitest';

import { freePort } from '../support/free-port.js';
import { type FailingMongod, startFailingMongod, startMongodProcess } from '../support/mongod-process.js';
import { create, inOwnDatabase, openReplica, within } from '../support/mongodb-store.js';

/** Beyond what a statement may take, and beyond the wait for an answer of the driver. */
const LONG_MS = 7000;

let mongod: FailingMongod;
beforeAll(async () => {
  mongod = await startFailingMongod();
});
afterAll(() => mongod[Symbol.asyncDispose]());

test('a standalone server is refused, with the way out', async () => {
  await using standalone = await startMongodProcess();
  const opening = openReplica(`mongodb://${standalone.address}/`);
  await expect(opening).rejects.toThrow(/no member of a replica set.*--replSet.*rs\.initiate\(\)/);
  await expect(openReplica(`mongodb://${standalone.address}/?replicaSet=rs0`)).rejects.toThrow(
    /no primary of a replica set answers.*replicaSet in the URI is its name/,
  );
});

test('a replica set that was not initiated is refused, with the way out', async () => {
  await using waiting = await startMongodProcess('--replSet', 'rs0');
  await expect(openReplica(`mongodb://${waiting.address}/`)).rejects.toThrow(/rs\.initiate\(\)/);
});

test('a server that nobody runs is UNAVAILABLE, and the error does not tell the password', async () => {
  const opening = openReplica(`mongodb://keyreeve:hunter2@127.0.0.1:${await freePort()}/?replicaSet=rs0`);
  const fault: unknown = await opening.catch((error: unknown) => error);
  expect(fault).toMatchObject({ name: 'StoreFault', kind: 'unavailable' });
  expect(inspect(fault, { depth: 20, showHidden: true })).not.toContain('hunter2');
});

test.each([
  'mongodb://keyreeve:hunter2@',
  'mongodb://keyreeve:hunter2@127.0.0.1:x/',
  'mongodb://keyreeve:hun@ter2@127.0.0.1/',
  'mongodb://keyreeve:hun%ter2@127.0.0.1/',
  'mongodb://keyreeve:hunter2@127.0.0.1/%ff',
  'mongodb://127.0.0.1/?hunter2=1',
  'mongodb://127.0.0.1/?authMechanismProperties=hunter2',
  'postgres://keyreeve:hunter2@127.0.0.1/',
  'hunter2',
])('a URI that is none is refused without being repeated: %s', async (uri) => {
  const error: unknown = await openReplica(uri).catch((thrown: unknown) => thrown);
  expect(error).toMatchObject({ message: expect.stringContaining('mongodb://host:port') as string });
  expect(inspect(error, { depth: 20, showHidden: true })).not.toMatch(/hunter2|ter2/);
});

test('an index that takes the server longer than a statement may keeps a start waiting, and not from starting', async () => {
  const uri = inOwnDatabase(mongod.uri);
  await mongod.fail(['createIndexes'], 1, { blockConnection: true, blockTimeMS: LONG_MS });
  const reported: string[] = [];
  await using store = await openReplica(uri, (line) => reported.push(line));
  expect(reported).toEqual(expect.arrayContaining(['created index keys.digest', 'schema version 3']));
  expect(await create(store)).toMatchObject({ replayed: false });

  await mongod.fail(['aggregate'], 1, { blockConnection: true, blockTimeMS: LONG_MS });
  expect(await store.countDigests(within(60_000))).toEqual(new Map([[0, 1]]));
});

test('the database is the one in the path, else keyreeve', async () => {
  const own = inOwnDatabase(mongod.uri);
  await (await openReplica(own))[Symbol.asyncDispose]();
  await (await openReplica(mongod.uri))[Symbol.asyncDispose]();
  await using client = new MongoClient(mongod.uri);
  const { databases } = await client.db().admin().listDatabases({ nameOnly: true });
  const names = databases.map(({ name }) => name);
  expect(names).toEqual(expect.arrayContaining([new URL(own).pathname.slice(1), 'keyreeve']));
});

test("the URI's own options come before ours", async () => {
  await using ours = await openReplica(inOwnDatabase(mongod.uri));
  await using named = await openReplica(`${inOwnDatabase(mongod.uri)}&APPNAME=billing`);
  await Promise.all([ours.ping(within(5000)), named.ping(within(5000))]);
  await using client = new MongoClient(mongod.uri);
  const operations = client.db('admin').aggregate([{ $currentOp: { allUsers: true, idleConnections: true } }]);
  const names = (await operations.toArray()).map(({ appName }: { appName?: string }) => appName);
  expect(names).toEqual(expect.arrayContaining(['keyreeve', 'billing']));
});
