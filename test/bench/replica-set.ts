import { MongoClient } from 'mongodb';

import { replicaSetName, replicaSetSettings } from '../support/mongod.js';
import { startMongodProcess } from '../support/mongod-process.js';

/**
 * A replica set of three members, which are reached directly: the proxies of `test/support/three-members` would take this
 * process's time.
 * Resolves once all three have what is written.
 */
export async function startReplicaSet(): Promise<AsyncDisposable & { readonly uri: string }> {
  const start = () => startMongodProcess('--replSet', replicaSetName, '--wiredTigerCacheSizeGB', '0.5');
  const started = await Promise.all([start(), start(), start()]);
  const members = started.map(({ address }, _id) => ({ _id, host: address }));
  await started[0].command({ replSetInitiate: { _id: replicaSetName, members, settings: replicaSetSettings } });
  const uri = `mongodb://${members.map(({ host }) => host).join()}/?replicaSet=${replicaSetName}`;
  await using client = new MongoClient(uri, { serverSelectionTimeoutMS: 60_000 });
  await client
    .db('bench')
    .collection('whole')
    .insertOne({}, { writeConcern: { w: 3 } });
  return {
    uri,
    async [Symbol.asyncDispose]() {
      await Promise.all(started.map((member) => member[Symbol.asyncDispose]()));
    },
  };
}

/** The same with this database in its path. Not by `URL`, which knows no list of hosts. */
export function inDatabase(uri: string, database: string): string {
  return uri.replace(/^(mongodb(?:\+srv)?:\/\/[^/?]+)\/?[^?]*/, `$1/${database}`);
}
